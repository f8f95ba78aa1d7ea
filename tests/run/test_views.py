"""The teachers' answers for every view: the same targets as asking them, kept in the bank, never trusted when damaged."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.config.options import Data, Train
from harness.run.teachers import teacher_config
from harness.run.views import CachedTeachers, ViewCache, is_worth_it, place
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.training import networks
from harness.training.data import Split, load
from harness.training.data.augmentation import Augmentation
from harness.training.data.batches import Views
from harness.training.trainer import Trainer
from methods import load as load_method
from methods.kd import KD
from methods.method import Teachers
from tests.pretended_gpu import SEND, pretending, waiting
from tests.running import configure, run


def networks_of(data, count: int) -> list[torch.nn.Module]:
    """Small networks, each with weights of its own."""
    streams = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return [networks.build("preresnet_tiny", data.classes, data.mean, data.sd, stream).eval() for stream in streams]


def history(runs: Path, record: dict) -> list[dict]:
    directory = run_directory(record["config"])
    return [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]


def view_files(runs: Path) -> list[Path]:
    return sorted((runs / "teachers").glob("*/views-*.npy"))


@pytest.mark.parametrize(("method", "used"), [("kd", 1), ("ensemble_kd", 2), ("weight_averaging", 2)])
def test_looked_up_targets_are_those_of_the_teachers(tmp_path, method, used):
    asked = run(tmp_path, method, teachers__cache="none")
    assert not view_files(tmp_path)
    known = run(tmp_path, method, teachers__cache="views")
    assert len(view_files(tmp_path)) == used
    assert (asked["provenance"]["teacher_views"], known["provenance"]["teacher_views"]) == (False, True)
    ours, theirs = (load_file(run_directory(record["config"]) / "student.safetensors") for record in (known, asked))
    assert any(
        not torch.equal(ours[name], theirs[name]) for name in ours
    )  # half precision leaves a trace: the answers were really looked up
    for ours, theirs in zip(history(tmp_path, known), history(tmp_path, asked), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)
    ours, theirs = (record["metrics"]["student"]["test"] for record in (known, asked))
    assert ours["nll"] == pytest.approx(theirs["nll"], rel=0.01)


@pytest.mark.parametrize(("method", "passes"), [("perturbation", 9), ("combined", 21)])
def test_the_second_of_a_pair_is_looked_up(method, passes):
    """One pass less than the method must cost without a cache; the perturbed images are no views, and asked about."""
    data = load(vars(Data()))
    split = Split(data.train.images[:8], data.train.labels[:8])
    data = replace(data, train=split)
    augmentation, teacher = Augmentation(split, 1, False, 0), networks_of(data, 4)
    answers = [network(augmentation(torch.arange(8 * 9))).detach() for network in teacher]
    calls = []
    for network in teacher:
        network.register_forward_hook(lambda *_: calls.append(1))
    asked, trained = [], []
    for teachers in (Teachers(teacher), CachedTeachers(teacher, answers)):
        calls.clear()
        trainer = Trainer(load_method(method)(), data, teachers, vars(Train(batch_size=8, lr=0.1)), 1, False, 0)
        training = trainer.start(networks_of(data, 1)[0])
        batches = [batch for epoch in range(3) for batch in trainer.batches.epoch(epoch)]
        trained.append([float(trainer.take_step(training, batch)["loss"].detach()) for batch in batches])
        asked.append(len(calls))
    assert asked == [3 * (2 + 4), 3 * (1 + 4)]
    assert trained[0] == pytest.approx(trained[1], rel=1e-5)
    assert trainer.method.passes(4) - 1 == passes


def test_auto_builds_no_more_views_than_a_run_asks_for(tmp_path):
    few = run(tmp_path, "kd", train__epochs=2)  # digits have 9 views
    many = run(tmp_path, "kd", train__epochs=9)
    assert [record["provenance"]["teacher_views"] for record in (few, many)] == [False, True]


@pytest.mark.parametrize("method", ["perturbation", "combined"])
def test_perturbations_look_up_where_it_pays(tmp_path, method):
    """They ask one teacher a step, while building asks both of them about all 9 views."""
    few = run(tmp_path, method, train__epochs=17)
    many = run(tmp_path, method, train__epochs=18)
    asked = run(tmp_path, method, teachers__cache="views")
    never = run(tmp_path, method, train__epochs=18, teachers__cache="none")
    records = (few, many, asked, never)
    assert [record["provenance"]["teacher_views"] for record in records] == [False, True, True, False]


@pytest.mark.parametrize(
    ("method", "members", "asked"),
    [("supervised", 0, 0), ("kd", 4, 1), ("ensemble_kd", 4, 4), ("weight_averaging", 4, 4), ("combined", 4, 1)],
)
def test_what_a_cache_can_know(method, members, asked):
    assert load_method(method)().known_answers(members) == asked


def test_a_method_with_inputs_of_its_own_has_no_cache_unless_it_says_so():
    class Own(KD):
        def inputs(self, images, labels, teachers, student, generator):
            return 1 - images, labels

    assert Own().known_answers(4) == 0


@pytest.mark.parametrize(
    ("cache", "asked", "teachers", "views", "epochs", "size", "worth"),
    [
        ("auto", 4, 4, 162, 200, 6e9, True),  # CIFAR-100, ensembles
        ("auto", 4, 4, 162, 100, 6e9, False),
        ("auto", 4, 4, 162, 200, 9e9, False),
        ("views", 4, 4, 162, 100, 9e9, True),
        ("auto", 1, 4, 162, 200, 6e9, False),  # perturbations
        ("auto", 1, 4, 9, 40, 1e6, True),
        ("views", 1, 4, 162, 200, 6e9, True),
        ("views", 0, 4, 9, 40, 1e6, False),
        ("none", 4, 4, 9, 40, 1e6, False),
    ],
)
def test_views_are_built_where_they_pay(cache, asked, teachers, views, epochs, size, worth):
    assert is_worth_it(cache, asked, teachers, views, epochs, int(size)) == worth


@pytest.fixture
def teacher(tmp_path):
    """A teacher's directory, its network and the cache."""
    data = load(configure(tmp_path)["data"])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    save_file(network.state_dict(), tmp_path / "student.safetensors")
    augmentation = Augmentation(data.train, 1, False, 0)
    return (
        tmp_path,
        network,
        ViewCache(augmentation, data.classes, "code", data.fingerprint(), "cpu", Console(), lambda: False),
    )


def build(teacher) -> torch.Tensor:
    directory, network, cache = teacher
    return replace(cache, console=Console()).answers(directory, network)  # a console of now: capsys replaces stdout


def test_every_view_has_its_answer(teacher):
    directory, network, cache = teacher
    answers = build(teacher)
    views = cache.augmentation.draw(3, torch.tensor([7, 400, 7]))
    images = cache.augmentation(views)
    teachers = CachedTeachers([network], [answers])
    teachers.expect(images, Views(views, views))
    expected = torch.softmax(network(images), 1)
    torch.testing.assert_close(torch.softmax(teachers(images)[0], 1), expected, rtol=1e-2, atol=1e-3)
    moved = images + 0.1  # no view: the network itself is asked
    torch.testing.assert_close(teachers(moved)[0], network(moved).detach())
    assert (directory / cache.name()).stat().st_size == pytest.approx(500 * 9 * 10 * 2, abs=200)


def test_another_kind_of_device_has_answers_of_its_own(teacher, capsys):
    directory, network, cache = teacher
    build(teacher)
    build((directory, network, replace(cache, device="some GPU")))
    assert len(list(directory.glob("views-*.npy"))) == 2
    capsys.readouterr()
    build(teacher)
    assert capsys.readouterr().out == ""  # neither takes the other's place


def test_answers_are_in_the_order_of_the_views_however_they_are_copied(teacher, monkeypatch):
    expected = build(teacher).clone()
    for path in teacher[0].glob("views-*"):
        path.unlink()
    monkeypatch.setattr("harness.run.views.batch_for", lambda images: 7)
    monkeypatch.setattr("harness.run.views.PIECE", 3)  # 4,500 is no multiple of 21
    assert (build(teacher).float() - expected.float()).abs().max() < 0.02


def test_building_waits_once_a_piece(teacher, monkeypatch):
    """Of many batches: each would be waited for while the device does nothing."""
    _, network, cache = teacher
    monkeypatch.setattr("harness.run.views.batch_for", lambda images: 100)
    monkeypatch.setattr("harness.run.views.PIECE", 9)  # 4,500 are five times as many
    found = np.zeros((4500, 10), np.float16)
    with pretending() as gpu:
        on_gpu = replace(cache, augmentation=Augmentation(load(vars(Data())).to("cuda").train, 1, False, 0))
        on_device = copy.deepcopy(network).to("cuda")
        gpu.events.clear()
        on_gpu.fill(found, on_device, teacher[0])
        assert len(waiting(gpu.events)) == 5
    assert np.allclose(found, build(teacher).numpy(), atol=0.02)


GB = 1 << 30


@pytest.mark.parametrize(("free", "kept", "fits"), [(4 * GB, 0, True), (3 * GB, 0, False), (3 * GB, GB, True)])
def test_answers_go_onto_the_device_where_they_fit(monkeypatch, free, kept, fits):
    """They take half of what is free, of which is what this process keeps of earlier runs."""
    cuda, out = torch.device("cuda"), io.StringIO()
    answers = [torch.empty(GB, 1, dtype=torch.float16, device="meta")]  # two of them in bytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 8 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: kept + 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: ("moved", device))
    found = place(answers, cuda, Console(out))
    assert found == [("moved", cuda)] if fits else found is answers
    said = out.getvalue()
    assert said.count("\n") == (0 if fits else 1)
    assert fits or "stay in the host's memory: they are 2.1 GB, 3.2 GB are free" in said


def test_a_device_that_is_full_after_all_leaves_them_on_the_host(monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("full")

    answers, out = [torch.empty(8, 1, dtype=torch.float16)], io.StringIO()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GB, GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.Tensor, "to", full)
    assert place(answers, torch.device("cuda"), Console(out)) is answers
    assert "stay in the host's memory" in out.getvalue()


def test_answers_are_the_same_from_the_device_and_from_the_host(teacher):
    """And nobody waits for either, on a pretended GPU."""
    _, network, cache = teacher
    views = cache.augmentation.draw(3, torch.arange(50))
    images, answers = cache.augmentation(views), [build(teacher), build(teacher).neg()]
    with pretending() as gpu:
        on_device, images = views.to("cuda"), images.to("cuda")
        found, sent = [], []
        for known in (answers, [values.to("cuda") for values in answers]):
            teachers = CachedTeachers([network.to("cuda")] * 2, known)
            teachers.expect(images, Views(on_device, views))
            gpu.events.clear()
            together, second = teachers(images), teachers.answer(1, images)
            assert not waiting(gpu.events)
            sent.append(sum(event.kind == SEND for event in gpu.events))
            found.append((together.cpu(), second.cpu()))
        assert sent == [2, 0]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert torch.equal(found[0][0][1], found[0][1])
    assert torch.equal(found[0][0], torch.stack([known[views] for known in answers]).float())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: np.save(path, np.zeros((4500, 10), np.float16)),
    ],
    ids=["bit", "truncated", "empty", "no checksum", "checksum damaged", "other content"],
)
def test_damaged_files_are_built_anew(teacher, damage, capsys):
    expected = build(teacher).clone()
    damage(teacher[0] / teacher[2].name())
    capsys.readouterr()
    assert torch.equal(build(teacher), expected)
    assert "built anew" in capsys.readouterr().out
    assert torch.equal(build(teacher), expected)
    assert "views of" not in capsys.readouterr().out  # the second time it is only read


def test_other_weights_or_other_code_have_other_answers(teacher, capsys):
    directory, network, cache = teacher
    before = build(teacher).clone()
    with torch.no_grad():
        network[1].weight.neg_()
    save_file(network.state_dict(), directory / "student.safetensors")
    after = build(teacher).clone()
    assert not torch.equal(before, after)
    capsys.readouterr()
    assert torch.equal(build((directory, network, replace(cache, code="another"))), after)
    assert "of other code or weights; it is built anew" in capsys.readouterr().out
    assert len(list(directory.glob("views-*.npy"))) == 1  # the old answers do not pile up


def test_of_two_processes_one_builds(tmp_path):
    """Two runs of one teacher begin together; the bank's claim lets one compute the views."""
    configs = [configure(tmp_path, "kd", seed=seed, teachers__cache="views", threads=1) for seed in (0, 1)]
    run(tmp_path, "kd", teachers__cache="none")  # the teachers
    (directory,) = [run_directory(teacher_config(configs[0], 0))]
    code = (
        "import json, sys; from harness.run.run import execute; from harness.runtime.console import Console;"
        "print(execute(json.loads(sys.argv[1]), Console())['status'])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, json.dumps(config)], stdout=subprocess.PIPE, text=True)
        for config in configs
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("views of 500 images" in output for output in outputs) == 1
    assert sorted(path.suffix for path in directory.glob("*views*")) == [".json", ".npy"]
