"""Deploying a student: what is checked, what is written, what it costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from harness import deploy
from harness.run import deployment
from harness.run.export import describe
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.store.imports import import_file
from harness.store.record import read_record, write_record
from harness.training import networks
from harness.training.data import load
from harness.training.data.preparation import prepare
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
    found = deployment.deploy(directory, tmp_path, False, Console())
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


def test_names_of_classes_are_text(directory):
    """Folders may be named in any bytes; strict readers of JSON take no half of a surrogate pair."""
    record = read_record(directory)
    names = [f"class {label}" for label in range(8)] + ["Käfer", os.fsdecode(b"caf\xe9")]
    about = describe(record, replace(load(record["config"]["data"]), names=names))
    assert json.loads(about["class_names"]) == [*names[:-1], "caf\\xe9"]


def test_onnx_is_an_extra(directory, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    assert "pip install onnx onnxscript" in fails(directory, capsys, "--onnx")


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


def test_an_ensemble_that_nobody_knows_is_compared_with_nothing(directory, tmp_path, capsys):
    """The student's network in its place would have other costs."""
    place = copy_of(directory, tmp_path / "run")
    record = read_record(directory)
    imported = import_file(tmp_path / "teachers", "digits", 0)
    imported.parent.mkdir(parents=True)
    for teachers, content in ((["digits-wrn10_1-set0-m0-000000000000"], None), (record["provenance"]["teachers"], "{")):
        write_record(place, record | {"provenance": record["provenance"] | {"teachers": teachers}})
        if content:
            imported.write_text(content)
        assert deployment.deploy(place, tmp_path / "files", False, Console()).keys() == {"student", "plain"}
        assert "note: compared with no ensemble: " in capsys.readouterr().out


def test_a_run_keeps_its_own_student(directory, tmp_path, capsys):
    """Its record knows the file by its digest; through a link, too."""
    before = (directory / "student.safetensors").read_bytes()
    (tmp_path / "link").symlink_to(directory)
    for folder in (directory, tmp_path / "link"):
        assert "is a run's own folder" in fails(directory, capsys, "--to", str(folder))
    assert (directory / "student.safetensors").read_bytes() == before


def test_a_folder_that_takes_nothing_is_one_line_and_keeps_what_it_has(directory, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "cannot write to" in fails(directory, capsys, "--to", str(tmp_path / "file"))
    place = tmp_path / "place"
    deployment.deploy(directory, place, False, Console())
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    capsys.readouterr()
    for at, file in ((4, ".student.safetensors"), (9, "student.pt2")):
        with failing(place, at) as disk:
            assert "No space left on device; choose another folder" in fails(directory, capsys, "--to", str(place))
        assert file in disk.failed
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before


# Serving ----------------------------------------------------------------------------------------------------------

COLOURS = np.eye(3, dtype=np.uint8) * 200 + 30


def write_banners(root: Path) -> Path:
    """Wide and tall pictures whose middle shows their class, and whose ends show the next one: who squeezes them into a
    square sees another class. In the test split, of many kinds.
    """
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for label in range(3):
            place = root / split / f"class {label}"
            place.mkdir(parents=True)
            for number in range(count):
                shown = COLOURS[[(label + 1) % 3, label, (label + 1) % 3]].repeat(20, 0)[None].repeat(20, 0)
                pixels = (shown + draw.integers(0, 25, shown.shape)).astype(np.uint8)
                banner = Image.fromarray(pixels if number % 2 else pixels.transpose(1, 0, 2))
                kind = number % 4 if split == "test" else 0
                if kind == 1:  # on its side, which its EXIF data say
                    exif = Image.Exif()
                    exif[0x112] = 6
                    banner.rotate(90, expand=True).save(place / f"{number}.png", exif=exif)
                elif kind == 2:
                    banner.convert("RGBA").save(place / f"{number}.webp", lossless=True)
                else:
                    banner.save(place / f"{number}.{'tiff' if kind == 3 else 'bmp'}")
    return root


def snippet() -> str:
    """The README's lines for a finished student."""
    section = (Path(__file__).parents[1] / "README.md").read_text().partition("## A finished student")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture(scope="module", params=[4.0, 0.0], ids=["in memory", "in files"])
def banners(request, tmp_path_factory):
    """A run on banners; its directory, and its test pictures in their order."""
    runs = tmp_path_factory.mktemp("banners")
    root = write_banners(runs / "banners")
    options = {"root": str(root), "image_size": 16, "padding": 0, "memory_gb": request.param, "workers": 0}
    changes = {f"data__{name}": value for name, value in options.items()}
    recipe = {"train__epochs": 6, "train__batch_size": 9, "train__lr": 0.2, "train__steps_per_epoch": None}
    run(runs, "supervised", "folder", **changes, **recipe)
    pictures = [path for place in sorted((root / "test").iterdir()) for path in sorted(place.iterdir())]
    return run_directory(configure(runs, "supervised", "folder", **changes, **recipe)), pictures


@pytest.mark.slow
def test_the_readme_serves_as_the_run_was_tested(banners, tmp_path):
    directory, pictures = banners
    assert deploy.main([str(directory), "--to", str(tmp_path)]) == 0
    check = "\nassert not {'harness', 'methods', 'torchvision'} & set(sys.modules)"
    command = [sys.executable, "-c", snippet() + check, str(tmp_path), *map(str, pictures)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = [re.fullmatch(r"class (\d) \(class \1\) at \d+%: (.*)", line) for line in ended.stdout.splitlines()]
    assert [match[2] for match in found] == list(map(str, pictures))
    labels = np.array([int(match[1]) for match in found])
    with np.load(directory / "predictions.npz") as stored:
        assert np.array_equal(labels, stored["test_logits"].argmax(1))
        accuracy = (labels == stored["test_labels"]).mean()
    assert accuracy == pytest.approx(read_record(directory)["metrics"]["student"]["test"]["acc"])
    if read_record(directory)["config"]["data"]["memory_gb"]:
        assert accuracy == 1  # else training itself has shown the ends


def test_every_file_knows_what_it_needs(banners, tmp_path):
    directory, pictures = banners
    onnx = pytest.importorskip("onnx") if find_spec("onnxscript") else None
    assert deploy.main([str(directory), "--to", str(tmp_path), *(["--onnx"] if onnx else [])]) == 0
    with safe_open(tmp_path / "student.safetensors", "pt") as file:
        about = file.metadata()
    in_files = not read_record(directory)["config"]["data"]["memory_gb"]
    assert (about["channels"], about["size"], about["resize"]) == ("3", "16", "18" if in_files else "16")
    assert json.loads(about["class_names"]) == ["class 0", "class 1", "class 2"]
    assert len(json.loads(about["mean"])) == len(json.loads(about["sd"])) == 3
    extra = {"about.json": ""}
    program = torch.export.load(tmp_path / "student.pt2", extra_files=extra).module()
    assert json.loads(extra["about.json"]) == about
    pixels = np.concatenate([prepare(picture, about) for picture in pictures[:7]])
    expected = program(torch.from_numpy(pixels)).detach().numpy()
    with np.load(directory / "predictions.npz") as stored:
        below = expected - expected.max(1, keepdims=True)
        assert np.allclose(below, stored["test_logits"][:7], atol=0.02)
    written = {"student.safetensors", "student.pt2", "preparation.py"}
    if onnx:
        written.add("student.onnx")
        model = onnx.load(tmp_path / "student.onnx")
        assert {entry.key: entry.value for entry in model.metadata_props} == about
        session = pytest.importorskip("onnx.reference").ReferenceEvaluator(model)
        assert np.allclose(session.run(None, {"pixels": pixels})[0], expected, atol=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == written


def test_equal_runs_leave_equal_students(directory, tmp_path):
    for place in ("one", "two"):
        run(tmp_path / place, "combined")
        assert deploy.main([str(run_directory(configure(tmp_path / place, "combined")))]) == 0
    files = [sorted((tmp_path / place).rglob("student.safetensors")) for place in ("one", "two")]
    assert len(files[0]) == len(files[1]) == 4  # two teachers, the student, its export
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()
