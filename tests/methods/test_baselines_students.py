"""What the field's baselines show their students, what these are, and what is deployed of them."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp
from torch import nn

import methods
from methods.baselines.ae_kd import AEKD
from methods.baselines.deep_ensemble import DeepEnsemble
from methods.baselines.function_matching import FunctionMatching
from methods.baselines.gaussian import KDGaussian
from methods.baselines.hydra import Hydra
from methods.baselines.mixup import KDMixUp
from methods.baselines.moved import Moved
from methods.baselines.ods import KDODS, KDConfODS
from methods.baselines.soup import Soup
from methods.baselines.unmerged import BatchEnsemble, LatentBEUnmerged
from methods.ensemble_kd import EnsembleKD
from methods.latent_be import rank_one_layers
from methods.method import Teachers
from methods.weight_averaging import WeightAveraging
from tests.arbitrary import SIZE, images_for, small_network, teachers_for

B = 6
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
MERGED = ("hydra", "batch_ensemble", "latentbe_unmerged")  # of which members' softmaxes are averaged
MOVED = [name for name in methods.BASELINES if issubclass(methods.load(name), Moved)]
sizes = pytest.mark.parametrize("members", [2, 8])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Inputs


@pytest.fixture
def network():
    return small_network()


@pytest.fixture
def images(network):
    return images_for(network, 0, B)


@pytest.fixture
def teachers(network):
    return teachers_for(network, 3, 0)


def move(method, images, teachers, seed=0):
    return method.move(images, teachers, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sd", [0.5, 4.0])
def test_noise_has_the_size_asked_for(teachers, sd):
    grey = torch.full((64, 1, SIZE, SIZE), 0.5, dtype=torch.float64)
    noise = 255 * (move(KDGaussian(sd=sd), grey, teachers) - grey)
    assert float(noise.std()) == pytest.approx(sd, rel=0.05) and abs(float(noise.mean())) < 0.1 * sd
    assert len(noise.flatten(1).unique(dim=0)) == 64
    bounds = move(KDGaussian(sd=9.0), grey.round(), teachers)
    assert bounds.min() == 0 and bounds.max() <= 1


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_images_are_mixed_in_pairs(teachers, share):
    """Of a lone white image one part stays, and the other goes to one image; the part is Beta's."""
    images = torch.zeros(B, 1, 1, 1, dtype=torch.float64)
    images[0] = 1
    parts = []
    for seed in range(400):
        mixed = move(KDMixUp(mixup=share), images, teachers, seed).flatten()
        assert float(mixed.sum()) == pytest.approx(1) and (mixed > 0).sum() <= 2
        if mixed[0] < 1:
            parts.append(float(mixed[0]))
    assert len(parts) > 200
    if share == 1:
        assert np.mean(parts) == pytest.approx(0.5, abs=0.05)
        assert np.var(parts) == pytest.approx(1 / 12, rel=0.2)


@pytest.mark.parametrize("kind", [KDODS, KDConfODS])
def test_ods_goes_up_a_random_mixture_of_a_teachers_answers(kind, images, teachers):
    found = move(kind(step=2.0, temperature=3.0), images, teachers) - images
    generator = torch.Generator().manual_seed(0)
    m = int(torch.randint(3, (), generator=generator))
    p = torch.softmax(teachers.member(m)(images) / 3, 1)
    w = 2 * torch.rand(p.shape, generator=generator, dtype=torch.float64) - 1
    # The gradient of linear teachers, by hand.
    slopes = teachers.member(m)[1].weight
    gradient = (p * (w - (p * w).sum(1, keepdim=True))) @ slopes / 3
    expected = 2 / 255 * SIZE * gradient / gradient.norm(dim=1, keepdim=True)
    if kind is KDConfODS:
        expected = expected * p.amax(1, keepdim=True)
    torch.testing.assert_close(found.flatten(1), expected)
    assert not torch.equal(move(kind(), images, teachers, 1), move(kind(), images, teachers, 2))


@pytest.mark.parametrize("name", MOVED)
def test_labels_are_of_the_drawn_images(name, network, images, teachers):
    cls = methods.load(name)
    method, generators = cls(alpha=0.5), [torch.Generator().manual_seed(5) for _ in range(2)]
    student = method.student(network, 3, torch.Generator()).eval()
    shown, doubled = method.inputs(images, LABELS, teachers, student, generators[0])
    alone, kept = cls().inputs(images, LABELS, teachers, student, generators[1])
    assert torch.equal(shown, torch.cat([images, alone])) and torch.equal(doubled, LABELS.repeat(2))
    assert torch.equal(kept, LABELS) and not torch.equal(alone, images)
    distillation = cls().loss(alone, LABELS, teachers, student)["loss"]
    label = cls(alpha=0.0).loss(shown, doubled, teachers, student)["loss"]
    torch.testing.assert_close(method.loss(shown, doubled, teachers, student)["loss"], 0.5 * label + 0.5 * distillation)
    on_labels = super(Moved, method).loss(images, LABELS, teachers, student)["loss_ce"]
    torch.testing.assert_close(label, on_labels)


# Students


def mean_of_softmaxes(logits):
    return logsumexp(log_softmax(logits.detach().numpy(), -1), 0) - math.log(len(logits))


@sizes
@pytest.mark.parametrize("name", ["hydra", "batch_ensemble", "latentbe_unmerged", "soup", "proxy_end2"])
def test_what_is_deployed_can_be_stored_and_read(name, members, network, images):
    method = methods.load(name)()
    student = method.student(network, members, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for k, parameter in enumerate(student.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k))
    before = copy.deepcopy(student.state_dict())
    deployed = method.deploy(student).eval()
    read = method.form(small_network(), members)
    read.load_state_dict(deployed.state_dict())
    assert torch.equal(read.eval()(images), deployed(images)) and deployed(images).shape == (B, 3)
    assert all(torch.equal(values, before[name]) for name, values in student.state_dict().items())
    if name in MERGED:
        expected = mean_of_softmaxes(student.eval()(images))
        torch.testing.assert_close(deployed(images).detach().numpy(), expected)


def test_the_answer_of_a_proxy_student_is_its_mean(network, images):
    alpha = network.eval()(images).exp() + 1
    answer = methods.load("proxy_end2")().deploy(network)(images).softmax(1)
    torch.testing.assert_close(answer, alpha / alpha.sum(1, keepdim=True))


def test_a_soup_is_the_mean_of_students_that_never_met(network, images, teachers):
    student = Soup().student(network, 3, torch.Generator()).train()
    Soup().loss(images, LABELS, teachers, student)["loss"].backward()
    for m, own in enumerate(student.networks):
        alone = copy.deepcopy(network).train()
        EnsembleKD().loss(images, LABELS, Teachers([teachers.networks[m]]), alone)["loss"].backward()
        for parameter, expected in zip(own.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad)
            parameter.data += m
    deployed = Soup().deploy(student)
    torch.testing.assert_close(deployed[0].weight, network[0].weight + 1)
    assert Soup().reestimate_bn and type(deployed) is type(network)


def test_hydras_heads_share_a_body_and_begin_apart(network, images):
    student = Hydra().student(network, 300, torch.Generator().manual_seed(0)).eval()
    heads = student.network[4].weight.detach().unflatten(0, (300, -1))
    assert len(heads.flatten(1).unique(dim=0)) == 300
    assert float(heads.std()) == pytest.approx(float(network[4].weight.detach().std()), rel=0.05)
    expected = torch.einsum("bf,mkf->mbk", network.eval()[:4](images), heads) + network[4].bias
    torch.testing.assert_close(student(images), expected)
    with pytest.raises(ValueError, match="no head"):
        Hydra().student(nn.Sequential(nn.Flatten()), 2, torch.Generator())


def test_a_batch_ensembles_members_have_biases_of_their_own(network, images):
    """((x * r_m) W) * s_m + b_m, and none of r, s and b decays."""
    method = BatchEnsemble()
    student = method.student(network, 3, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for layer in rank_one_layers(student):
            assert abs(float(layer.s.mean()) - 1) < 0.5 and float(layer.s.std()) > 0.1
            layer.db.copy_(draw(*layer.db.shape, seed=7))
    conv, head = rank_one_layers(student)
    for m in range(3):
        x = nn.functional.conv2d(images * conv.r[m][:, None, None], conv.weight, padding=1)
        x = x * conv.s[m][:, None, None] + (conv.bias + conv.db[m])[:, None, None]
        x = student.network[1:4](x)
        expected = (x * head.r[m]) @ head.weight.T * head.s[m] + head.bias + head.db[m]
        torch.testing.assert_close(student(images)[m], expected)
        torch.testing.assert_close(student.extract(m).eval()(images), expected)
        torch.testing.assert_close(student.member(m)(images), expected)
    shared, own = method.parameter_groups(student, 5e-4)
    assert own["weight_decay"] == 0 and len(own["params"]) == 6 and own["lr_scale"] == 3
    assert sum(len(group["params"]) for group in (shared, own)) == len(list(student.parameters()))
    assert all(layer.db is None for layer in rank_one_layers(LatentBEUnmerged().student(network, 3, torch.Generator())))


def test_a_deep_ensemble_is_its_teachers(network, images):
    networks = [copy.deepcopy(network) for _ in range(3)]
    for m, teacher in enumerate(networks):
        teacher[4].weight.data += m
    teachers = Teachers(networks)
    student = DeepEnsemble().student(network, 3, torch.Generator())
    DeepEnsemble().adopt(student, teachers)
    answer = DeepEnsemble().deploy(student).eval()(images).detach().numpy()
    torch.testing.assert_close(answer, mean_of_softmaxes(teachers(images)))
    with pytest.raises(ValueError, match=r"teachers\.model"):
        DeepEnsemble().adopt(student, teachers_for(network, 3, 0))


@pytest.mark.parametrize("members", range(2, 9))
def test_function_matching_takes_as_many_passes_as_weight_averaging(members):
    method, other = FunctionMatching(), WeightAveraging()
    passes = method.epochs(200, members) * method.passes(members)
    assert passes == pytest.approx(200 * other.passes(members), abs=method.passes(members) / 2)
    assert FunctionMatching(match_compute=False).epochs(200, members) == 200


# Options


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("kd_gaussian", {"sd": -1.0}), ("kd_mixup", {"mixup": 0.001}), ("kd_ods", {"step": -1.0})),
        *(("ae_kd", {"cap": 0.0}), ("ae_kd", {"weight": -1.0}), ("ae_kd", {"temperature": 0.0})),
        *(("ca_mkd", {"weight": -1.0}), ("ca_mkd", {"temperature": 0.0}), ("dkd", {"other_classes": -1.0})),
        *(("end2", {"temperature": 0.5}), ("end2", {"smoothing": 0.0})),
    ],
)
def test_nonsense_is_refused(name, options):
    with pytest.raises(ValueError, match=f"method.{next(iter(options))}"):
        methods.load(name)(**options)


def test_ae_kd_says_how_many_teachers_it_can_weigh():
    assert [AEKD(cap=cap).minimum_teachers() for cap in (1.0, 0.6, 0.5, 0.3)] == [1, 2, 2, 4]
    assert AEKD.most_teachers == 8


@pytest.mark.parametrize("name", ["ca_mkd", "proxy_end2", "latentbe_gaussian", "batch_ensemble", "latentbe_tdiv"])
def test_what_compares_teachers_needs_two(name):
    assert methods.load(name)().minimum_teachers() == 2


def test_every_method_names_its_source():
    for name in itertools.chain(methods.VARIANTS, methods.BASELINES):
        source = methods.load(name).citation
        assert name == "supervised" or (len(source.rstrip(".").split(". ")) == 3 and source[-6:-3] in (" 20",)), name
