"""The teachers' answers for every view: the same targets as asking them, kept in the bank, never trusted when damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.config.teachers import teacher_config
from harness.run.views import CachedTeachers, ViewCache
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.training.data import load
from harness.training.data.augmentation import Augmentation
from tests.running import configure, run


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


@pytest.mark.parametrize("method", ["perturbation", "combined"])
def test_perturbed_images_are_no_views(tmp_path, method):
    record = run(tmp_path, method, teachers__cache="views")
    assert not record["provenance"]["teacher_views"] and not view_files(tmp_path)


def test_auto_builds_no_more_views_than_a_run_asks_for(tmp_path):
    few = run(tmp_path, "kd", train__epochs=2)  # digits have 9 views
    many = run(tmp_path, "kd", train__epochs=9)
    assert [record["provenance"]["teacher_views"] for record in (few, many)] == [False, True]


@pytest.fixture
def teacher(tmp_path):
    """A teacher's directory, its network and the cache."""
    data = load(configure(tmp_path)["data"])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    save_file(network.state_dict(), tmp_path / "student.safetensors")
    augmentation = Augmentation(data.train.images, 1, False, 0)
    return tmp_path, network, ViewCache(augmentation, data.classes, data.fingerprint(), Console(), lambda: False)


def build(teacher) -> torch.Tensor:
    directory, network, cache = teacher
    return replace(cache, console=Console()).answers(directory, network)  # a console of now: capsys replaces stdout


def test_every_view_has_its_answer(teacher):
    directory, network, cache = teacher
    answers = build(teacher)
    images, views = cache.augmentation(torch.tensor([7, 400, 7]), cache.augmentation.draw(3))
    teachers = CachedTeachers([network], [answers])
    teachers.expect(images, views)
    expected = torch.softmax(network(images), 1)
    torch.testing.assert_close(torch.softmax(teachers(images)[0], 1), expected, rtol=1e-2, atol=1e-3)
    moved = images + 0.1  # no view: the network itself is asked
    torch.testing.assert_close(teachers(moved)[0], network(moved).detach())
    assert (directory / cache.name()).stat().st_size == pytest.approx(500 * 9 * 10 * 2, abs=200)


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


def test_other_weights_or_other_code_have_other_answers(teacher, monkeypatch, capsys):
    directory, network, _ = teacher
    before = build(teacher).clone()
    with torch.no_grad():
        network[1].weight.neg_()
    save_file(network.state_dict(), directory / "student.safetensors")
    after = build(teacher).clone()
    assert not torch.equal(before, after)
    monkeypatch.setattr("harness.store.provenance.code", lambda: "another")
    capsys.readouterr()
    assert torch.equal(build(teacher), after)
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
