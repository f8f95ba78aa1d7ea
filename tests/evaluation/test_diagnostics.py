"""Diversity, fidelity, loss barriers and the deep-ensemble equivalent."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.composition import plain as plain_config
from harness.config.composition import register
from harness.config.options import DATA
from harness.evaluation import diagnostics, metrics
from harness.run.run import execute
from harness.runtime.console import Console
from harness.training import networks
from harness.training.data import Dataset, Split, load
from harness.training.data.augmentation import to_unit
from harness.training.inference import reestimate_batch_norm
from methods.latent_be import LatentBE
from methods.method import Teachers
from methods.weight_averaging import WeightAveraging
from tests import arbitrary

SPLITS = ("train", "test", "perturbed")


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load(asdict(DATA["digits"]))
    return replace(whole, train=Split(*first(whole.train)), test=Split(*first(whole.test)))


def first(split: Split, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    return split.images[:count], split.labels[:count]


@pytest.fixture(scope="module")
def plain(data):
    generator = torch.Generator().manual_seed(0)
    built = [networks.build("preresnet_tiny", 10, data.mean, data.sd, generator) for _ in range(4)]
    for number, network in enumerate(built):
        arbitrary.randomise(network.network.norm, number)
    return [network.eval() for network in built]


@pytest.fixture
def student(plain) -> LatentBE:
    return WeightAveraging(factors="normal").student(plain[3], 3, torch.Generator().manual_seed(0))


def diagnose(student, deployed, teachers, data):
    return diagnostics.diagnose(student, deployed, Teachers(teachers), data, torch.Generator().manual_seed(0))


# Members as networks of their own


@settings(max_examples=15, deadline=None, derandomize=True)
@given(arbitrary.networks(), st.integers(2, 4), st.integers(0, 999))
def test_an_extracted_member_is_that_member(network, members, seed):
    student, images = arbitrary.student_for(network, members, seed), arbitrary.images_for(network, seed)
    before = copy.deepcopy(student.state_dict())
    for m in range(members):
        alone = student.extract(m).eval()
        torch.testing.assert_close(alone(images), student.member(m)(images), rtol=1e-9, atol=1e-11)
        assert type(alone) is type(network)
        for parameter in alone.parameters():
            parameter.data.zero_()  # its weights are its own
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


# Diversity and fidelity


def test_equal_networks_have_no_diversity(plain, data):
    found = diagnose(plain[3], plain[3], [plain[0], copy.deepcopy(plain[0])], data)
    for kind in SPLITS:
        assert found["teachers"][kind] == pytest.approx({"pairwise_kl": 0, "disagreement": 0, "ambiguity": 0})
    assert found["members"] is None and found["barriers"] is None


def test_diversity_is_that_of_the_logits(plain, data, student):
    found = diagnose(student, student.merge().eval(), plain[:3], data)
    with torch.no_grad():
        images = to_unit(data.test.images)
        of_teachers = torch.stack([teacher(images) for teacher in plain[:3]]).double()
        of_members = copy.deepcopy(student).eval()(images).double()
    for who, logits in (("teachers", of_teachers), ("members", of_members)):
        p = torch.softmax(logits, -1)
        pairs = [(0, 1), (0, 2), (1, 2)]
        kl = [(p[i] * (p[i] / p[j]).log()).sum(-1).mean() for a, b in pairs for i, j in ((a, b), (b, a))]
        differ = [(logits[i].argmax(-1) != logits[j].argmax(-1)).double().mean() for i, j in pairs]
        rows = torch.arange(len(images))
        nll = -p[:, rows, data.test.labels].log().mean()
        ensemble = -p.mean(0)[rows, data.test.labels].log().mean()
        expected = {"pairwise_kl": torch.stack(kl).mean(), "disagreement": torch.stack(differ).mean()}
        expected["ambiguity"] = nll - ensemble
        assert found[who]["test"] == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-4)
        assert found[who]["test"]["pairwise_kl"] > 0.01


def test_perturbed_inputs_are_where_teachers_disagree(plain, data):
    found = diagnose(plain[3], plain[3], plain[:3], data)["teachers"]
    assert found["perturbed"]["pairwise_kl"] > 1.01 * found["train"]["pairwise_kl"]


def test_batches_suit_the_size_of_the_images(plain, data, monkeypatch):
    """However large they are: the pairs of teachers that perturb the images are the same, and so are the numbers."""
    monkeypatch.setattr(diagnostics, "PAIRED", 60)
    sizes, pairs, draw = [], [], diagnostics.draw_pair
    monkeypatch.setattr(diagnostics, "draw_pair", lambda *given: pairs.append(draw(*given)) or pairs[-1])
    whole = diagnose(plain[3], plain[3], plain[:3], data)
    drawn = pairs.copy()
    monkeypatch.setattr(diagnostics, "batch_for", lambda images: 17)
    observer = copy.deepcopy(plain[2])
    observer.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    parts = diagnose(plain[3], plain[3], [*plain[:2], observer], data)
    assert max(sizes) == 17
    assert pairs == drawn * 2 and len(drawn) == 4  # of 200 images
    for kind in SPLITS:
        assert parts["teachers"][kind] == pytest.approx(whole["teachers"][kind], rel=1e-3)
    assert parts["fidelity"] == pytest.approx(whole["fidelity"], rel=1e-3)


def test_fidelity_is_to_the_ensemble(plain, data):
    found = diagnose(plain[0], plain[0], [plain[0], plain[0]], data)["fidelity"]
    assert found == pytest.approx({"agreement": 1.0, "kl": 0.0}, abs=1e-9)
    found = diagnose(plain[0], plain[0], [plain[1], plain[2]], data)["fidelity"]
    with torch.no_grad():
        images = to_unit(data.test.images)
        p, *both = (torch.softmax(plain[m](images).double(), -1) for m in range(3))
    ensemble = sum(both) / 2
    agreement = (p.argmax(-1) == ensemble.argmax(-1)).double().mean()
    kl = (ensemble * (ensemble / p).log()).sum(-1).mean()
    assert found == pytest.approx({"agreement": float(agreement), "kl": float(kl)}, rel=1e-4)


@pytest.mark.parametrize(("count", "teachers", "fidelity"), [(0, False, False), (1, False, True)])
def test_few_teachers_leave_gaps(plain, data, count, teachers, fidelity):
    found = diagnose(plain[3], plain[3], plain[:count], data)
    assert (found["teachers"] is not None, found["fidelity"] is not None) == (teachers, fidelity)


# Loss barriers


def test_barriers_rise_above_the_line_between_the_ends():
    assert diagnostics.barrier([1.0, 1.0, 5.0, 1.0, 3.0]) == 3.0
    assert diagnostics.barrier([1.0, 1.5, 2.0, 2.5, 3.0]) == 0.0
    assert diagnostics.barrier([1.0, 0.0, 0.0, 0.0, 3.0]) == 0.0


def test_barriers_are_measured_between_members(plain, data, student):
    found = diagnose(student, student.merge().eval(), plain[:2], data)["barriers"]
    assert list(found) == ["0-1", "0-2", "1-2"]
    images, labels = to_unit(data.test.images), data.test.labels
    with torch.no_grad():
        for m, (pair, end) in enumerate([("0-1", 0), ("0-1", -1), ("1-2", -1)]):
            loss = torch.nn.functional.cross_entropy(student.member(m)(images), labels)
            assert found[pair]["loss"][end] == pytest.approx(float(loss), rel=1e-4)
        middle = student.extract(0).eval()
        for own, other in zip(middle.parameters(), student.extract(2).parameters(), strict=True):
            own.data = (own + other) / 2
        loss = torch.nn.functional.cross_entropy(middle(images), labels)
        assert found["0-2"]["loss"][2] == pytest.approx(float(loss), rel=1e-4)
        reestimate_batch_norm(middle, data.train)
        loss = torch.nn.functional.cross_entropy(middle(images), labels)
        assert found["0-2"]["loss_bn"][2] == pytest.approx(float(loss), rel=1e-4)
    for path in found.values():
        assert path["t"] == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert path["barrier"] == diagnostics.barrier(path["loss"])
        assert path["barrier_bn"] == diagnostics.barrier(path["loss_bn"])
        assert path["loss"] != path["loss_bn"]


def test_equal_members_have_no_barrier(plain, data):
    student = WeightAveraging().student(plain[3], 2, torch.Generator())
    found = diagnose(student, student.merge().eval(), plain[:2], data)["barriers"]["0-1"]
    assert (found["barrier"], found["barrier_bn"]) == pytest.approx((0, 0), abs=1e-6)


def test_diagnosing_leaves_no_trace(plain, data, student):
    deployed = student.merge().eval()
    tensors = [student.state_dict(), deployed.state_dict(), *(teacher.state_dict() for teacher in plain)]
    before, random = copy.deepcopy(tensors), torch.get_rng_state()
    diagnose(student, deployed, plain[:3], data)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(tensors, before, strict=True) for k in a)
    assert torch.equal(torch.get_rng_state(), random)


# Deep ensembles


def test_the_equivalent_is_read_off_the_ladder():
    ladder = [1.0, 0.8, 0.7, 0.65]
    equivalent = diagnostics.deep_ensemble_equivalent
    assert [equivalent(nll, ladder) for nll in ladder] == [1.0, 2.0, 3.0, 4.0]
    assert equivalent(0.85, ladder) == pytest.approx(1.75)
    assert equivalent(0.66, ladder) == pytest.approx(3.8)
    assert equivalent(1.2, ladder) == 1.0
    assert equivalent(0.1, ladder) == 4.0
    assert equivalent(0.75, [1.0, 0.8, 0.9, 0.7]) == pytest.approx(3.75)  # sampling can let a step rise


def test_the_ladder_is_of_ensembles():
    random = np.random.default_rng(0)
    labels = {name: random.integers(0, 5, 400) for name in ("validation", "test")}
    logits = {name: 2 * np.eye(5)[labels[name]] + 3 * random.normal(size=(3, 400, 5)) for name in labels}
    ladder = diagnostics.ensemble_ladder(logits, labels)

    def nll_ts(chosen):
        validation, test = (metrics.average(logits[name][chosen]) for name in ("validation", "test"))
        temperature = metrics.fit_temperature(validation, labels["validation"])
        return metrics.nll_of_logits(test / temperature, labels["test"])

    assert ladder[0] == pytest.approx(np.mean([nll_ts([m]) for m in range(3)]))
    assert ladder[1] == pytest.approx(np.mean([nll_ts(pair) for pair in ([0, 1], [1, 2], [2, 0])]))
    assert ladder[2] == pytest.approx(nll_ts([0, 1, 2]))
    assert ladder[0] > ladder[1] > ladder[2]


def test_where_every_image_is_right_there_is_no_best_temperature():
    labels = np.arange(20) % 5
    logits = 3.0 * np.eye(5)[labels]
    assert metrics.fit_temperature(logits, labels) == 1.0
    logits[0] = 3.0 * np.eye(5)[1]  # of class 0
    assert metrics.fit_temperature(logits, labels) > 0.5


# In a run's record


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Records of short runs in one folder, by method and options."""
    register()
    runs = tmp_path_factory.mktemp("runs")

    def run(*options: str) -> dict:
        recipe = ["train=smoke", "teachers.size=3", "device=cpu", f"runs={runs}"]
        with initialize(version_base="1.3", config_path=None):
            config = plain_config(compose("config", [*options, *recipe]))
        return execute(config, Console())["diagnostics"]

    return run


def test_a_record_has_diagnostics(record):
    found = record("method=combined")
    assert set(found) == {"teachers", "members", "fidelity", "barriers", "dee", "dee_cap"}
    assert set(found["members"]) == set(found["teachers"]) == set(SPLITS)
    assert set(found["barriers"]) == {"0-1", "0-2", "1-2"}
    assert 1 <= found["dee"] <= found["dee_cap"] == 3
    single = record("method=kd")
    assert single["teachers"] == found["teachers"]  # the whole set, on the same inputs, for every method
    assert single["members"] is None and single["barriers"] is None
    assert record("method=kd", "evaluate.diagnostics=false") is None
    assert record("method=kd", "model=preresnet8", "teachers.model=preresnet_tiny")["dee"] is None
