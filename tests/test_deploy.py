"""Deploying a student: what is checked, what is written, what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from harness import deploy
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.store.record import read_record, write_record
from harness.training import networks
from harness.training.data import load
from tests.faults import failing
from tests.running import configure, run


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    run(runs, "combined")
    return run_directory(configure(runs, "combined"))


def fails(directory: Path, capsys, *options: str) -> str:
    assert deploy.main([str(directory), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def copy_of(directory: Path, place: Path) -> Path:
    place.mkdir()
    for name in ("record.json", "predictions.npz", "student.safetensors"):
        (place / name).write_bytes((directory / name).read_bytes())
    return place


def test_the_student_costs_what_the_plain_network_costs(directory, tmp_path):
    found = deploy.deploy(directory, tmp_path, False, Console())
    assert found["student"]["parameters"] == found["plain"]["parameters"]
    assert found["student"]["flops"] == found["plain"]["flops"] == read_record(directory)["cost"]["flops"]
    assert found["ensemble"]["parameters"] == 2 * found["plain"]["parameters"]
    assert found["ensemble"]["flops"] == 2 * found["plain"]["flops"]
    assert all(values["latency_s"] > 0 for values in found.values())


def test_files_hold_the_student(directory, tmp_path):
    assert deploy.main([str(directory), "--to", str(tmp_path)]) == 0
    with safe_open(tmp_path / "student.safetensors", "pt") as file:
        about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (about["model"], about["classes"], about["channels"], about["size"]) == ("preresnet_tiny", "10", "1", "8")
    network = networks.build(about["model"], 10, (0.5,), (0.2,), size=8).eval()
    network.load_state_dict(weights)
    images = load(read_record(directory)["config"]["data"]).test.images[:7] / 255
    with torch.no_grad():
        expected = network(images)
    assert torch.allclose(torch.export.load(tmp_path / "student.pt2").module()(images), expected, atol=1e-5)


EXAMPLE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
logits = program(torch.rand(1, 1, 8, 8))
assert logits.shape == (1, 10)
assert not {"harness", "methods"} & set(sys.modules)
"""


@pytest.mark.slow
def test_the_program_runs_without_this_package(directory, tmp_path):
    assert deploy.main([str(directory), "--to", str(tmp_path)]) == 0
    command = [sys.executable, "-c", EXAMPLE, str(tmp_path / "student.pt2")]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0


def test_onnx_is_an_extra(directory, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(deploy, "find_spec", lambda name: None)
    assert "pip install onnx onnxscript" in fails(directory, capsys, "--onnx")


def test_onnx(directory, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    assert deploy.main([str(directory), "--onnx", "--to", str(tmp_path)]) == 0
    onnx.checker.check_model(tmp_path / "student.onnx")
    images = load(read_record(directory)["config"]["data"]).test.images[:5] / 255  # another batch size than exported
    session = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(tmp_path / "student.onnx"))
    (found,) = session.run(None, {session.input_names[0]: images.numpy()})
    expected = torch.export.load(tmp_path / "student.pt2").module()(images)
    assert np.allclose(found, expected.detach().numpy(), atol=1e-4)


def test_another_network_is_refused(directory, tmp_path, capsys):
    place = copy_of(directory, tmp_path / "run")
    with np.load(place / "predictions.npz") as stored:
        arrays = dict(stored)
    arrays["test_logits"] = arrays["test_logits"][::-1]
    np.savez(place / "predictions.npz", **arrays)
    assert "is not the file that its run wrote" in fails(place, capsys)
    assert not (place / "deploy").exists()


def test_a_run_without_predictions_is_refused(directory, tmp_path, capsys):
    place = tmp_path / "run"
    place.mkdir()
    for name in ("record.json", "student.safetensors"):
        (place / name).write_bytes((directory / name).read_bytes())
    assert "predictions.npz is missing" in fails(place, capsys)
    (place / "predictions.npz").write_bytes((directory / "predictions.npz").read_bytes()[:500])
    assert "predictions.npz is not the file that its run wrote" in fails(place, capsys)


def test_damaged_and_unfinished_runs_are_refused(directory, tmp_path, capsys):
    assert "has no record.json" in fails(tmp_path, capsys)
    place = copy_of(directory, tmp_path / "run")
    record = read_record(place)
    write_record(place, {**record, "status": "failed", "error": {"message": "why"}})
    assert "is no finished run: failed" in fails(place, capsys)
    record["provenance"]["data"] = "0" * 16
    write_record(place, record)
    assert "are not those of" in fails(place, capsys)
    write_record(place, read_record(directory))
    (place / "student.safetensors").write_bytes((directory / "student.safetensors").read_bytes()[:-10])
    assert "is not the file that its run wrote" in fails(place, capsys)


def test_a_folder_that_takes_nothing_is_one_line_and_keeps_what_it_has(directory, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "cannot write to" in fails(directory, capsys, "--to", str(tmp_path / "file"))
    place = tmp_path / "place"
    deploy.deploy(directory, place, False, Console())
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    capsys.readouterr()
    for at, file in ((4, ".student.safetensors"), (9, "student.pt2")):
        with failing(place, at) as disk:
            assert "No space left on device; choose another folder" in fails(directory, capsys, "--to", str(place))
        assert file in disk.failed
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before
