"""Shift and unknown images asked of runs that are done: nothing is trained again, nothing known is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config import ConfigError
from harness.evaluation import corruptions
from harness.store.aside import TRAINED
from harness.store.files import Damaged
from harness.store.identity import run_directory
from harness.store.record import answers, read_record, write_record
from harness.sweep.plan import make_plan
from harness.verify import main
from tests import formats
from tests.heads import TINY, Head, one, records
from tests.running import configure, run


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options for which a small other data set lies on the disk; few corruptions, for speed."""
    few = {corruptions.contrast: (0.9, 0.8, 0.7, 0.6, 0.5)}
    monkeypatch.setattr(corruptions, "STRENGTHS", few)
    monkeypatch.setattr("harness.training.data.fashion_mnist.DEBIAN", tmp_path / "nowhere")
    formats.write_fashion_mnist(tmp_path / "data", monkeypatch, train=5010)
    return {"data__root": str(tmp_path / "data")}


def trained_files(directory: Path) -> dict[str, bytes]:
    names = ("student.safetensors", "predictions.npz", "history.jsonl")
    return {name: (directory / name).read_bytes() for name in names}


def test_the_answers_are_those_of_a_run_that_was_asked_at_once(tmp_path: Path, images: dict[str, Any]) -> None:
    first = run(tmp_path / "late", "combined", **images)
    directory = run_directory(first["config"])
    files = trained_files(directory)
    shifted = run(tmp_path / "late", "combined", **images, evaluate__shift=True)
    both = run(tmp_path / "late", "combined", **images, evaluate__ood=["fashion_mnist"])
    assert trained_files(directory) == files
    assert not (directory / TRAINED).exists()
    at_once = run(tmp_path / "once", "combined", **images, evaluate__shift=True, evaluate__ood=["fashion_mnist"])
    assert (first["shift"], first["ood"], shifted["ood"]) == (None, None, None)
    assert shifted["shift"] == both["shift"] == at_once["shift"]
    assert both["ood"] == at_once["ood"]
    for name in ("metrics", "diagnostics", "selection", "cost"):
        assert both[name] == first[name]
    assert both["config"]["evaluate"] == at_once["config"]["evaluate"]
    assert both["provenance"]["asked_later"]["code"] == both["provenance"]["code"]
    assert both["provenance"]["attempts"] == 1


def test_who_asks_for_less_gets_what_is_known(tmp_path: Path, images: dict[str, Any]) -> None:
    known = run(tmp_path, "kd", **images, evaluate__shift=True)
    written = (run_directory(known["config"]) / "record.json").stat().st_mtime_ns
    assert run(tmp_path, "kd", **images) == known
    assert (run_directory(known["config"]) / "record.json").stat().st_mtime_ns == written


def test_what_cannot_be_answered_loses_nothing(tmp_path: Path, images: dict[str, Any]) -> None:
    known = run(tmp_path, "kd", **images)
    directory = run_directory(known["config"])
    with pytest.raises(ConfigError, match="svhn"):
        run(tmp_path, "kd", **images, evaluate__ood=["svhn"])
    assert read_record(directory) == known
    weights = directory / "student.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    with pytest.raises(Damaged, match=r"student\.safetensors is not the file that its run wrote"):
        run(tmp_path, "kd", **images, evaluate__shift=True)
    assert read_record(directory) == known
    weights.write_bytes(content)
    assert run(tmp_path, "kd", **images, evaluate__shift=True)["shift"]


def test_of_teachers_trained_again_since_it_is_not_compared_with_them(tmp_path: Path, images: dict[str, Any]) -> None:
    known = run(tmp_path, "ensemble_kd", **images)
    directory = run_directory(known["config"])
    taught = known["provenance"]["teacher_weights"]
    assert list(taught) == known["provenance"]["teachers"]
    for name, weights in taught.items():
        assert read_record(tmp_path / "teachers" / name)["files"]["student.safetensors"] == weights
    assert main([str(directory)]) == 0
    last = list(taught)[-1]
    earlier = {**known["provenance"], "teacher_weights": {**taught, last: "0" * 64}}
    known = write_record(directory, {**known, "provenance": earlier})
    with pytest.raises(ConfigError, match=f"another {last} than the bank holds"):
        run(tmp_path, "ensemble_kd", **images, evaluate__shift=True)
    assert read_record(directory) == known
    assert main([str(directory)]) == 1


def test_what_only_training_can_verify_is_said_and_tried(
    tmp_path: Path, images: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    known = run(tmp_path, "combined", **images, evaluate__shift=True)
    directory = run_directory(known["config"])
    assert main([str(directory)]) == 0
    assert "; diagnostics, shift not tried again (--train does)" in capsys.readouterr().out
    assert main([str(directory), "--train"]) == 0
    assert "; trained again to the same files" in capsys.readouterr().out
    known["shift"]["ensemble"]["acc"] -= 0.01
    write_record(directory, known)
    assert main([str(directory), "--train"]) == 1
    assert "DOES NOT HOLD: shift, ensemble acc: trained again it comes out as" in capsys.readouterr().out


def test_other_weights_or_other_data_are_refused(tmp_path: Path, images: dict[str, Any]) -> None:
    known, other = (run(tmp_path, "kd", **images, seed=seed) for seed in (0, 1))
    directory = run_directory(known["config"])
    weights = directory / "student.safetensors"
    content = weights.read_bytes()
    weights.write_bytes((run_directory(other["config"]) / "student.safetensors").read_bytes())
    with pytest.raises(Damaged, match="is not the file that its run wrote"):
        run(tmp_path, "kd", **images, evaluate__shift=True)
    write_record(directory, {**known, "version": 1, "files": {}})  # an older record knows no digests
    with pytest.raises(ConfigError, match="does not repeat its recorded predictions"):
        run(tmp_path, "kd", **images, evaluate__shift=True)
    weights.write_bytes(content)
    write_record(directory, {**known, "provenance": {**known["provenance"], "data": "f" * 16}})
    with pytest.raises(ConfigError, match="are not those it was trained on"):
        run(tmp_path, "kd", **images, evaluate__shift=True)


def test_a_run_that_died_while_it_was_asked_goes_on(tmp_path: Path, images: dict[str, Any]) -> None:
    known = run(tmp_path, "kd", **images)
    directory = run_directory(known["config"])
    files = trained_files(directory)
    (directory / "record.json").rename(directory / TRAINED)  # where a kill -9 leaves it
    assert run(tmp_path, "kd", **images, evaluate__shift=True)["shift"]
    assert trained_files(directory) == files
    (directory / "record.json").rename(directory / TRAINED)
    assert run(tmp_path, "kd", **images)["shift"], "asked for nothing, it comes back as it was"


def test_teachers_of_other_data_are_refused(tmp_path: Path, images: dict[str, Any]) -> None:
    run(tmp_path, "kd", **images)
    (teacher,) = (tmp_path / "teachers").glob("*-m0-*")
    record = read_record(teacher)
    write_record(teacher, {**record, "provenance": {**record["provenance"], "data": "f" * 16}})
    with pytest.raises(ConfigError, match="was trained on other data"):
        run(tmp_path, "kd", **images, seed=1)


def test_only_what_is_asked_and_unanswered_counts() -> None:
    record = {"status": "done", "shift": None, "ood": {"svhn": {}}}
    asked = {"diagnostics": None, "shift": False, "ood": []}
    assert answers(record, asked)
    assert answers(record, {**asked, "ood": ["svhn"]})
    assert not answers(record, {**asked, "ood": ["svhn", "cifar10"]})
    assert not answers(record, {**asked, "shift": True})
    assert not answers({**record, "status": "failed"}, asked)
    assert answers({"status": "diverged"}, {**asked, "shift": True})


def test_one_run_asked_in_two_ways_answers_both(tmp_path: Path) -> None:
    asked = ({"evaluate__ood": ["svhn"]}, {"evaluate__ood": ["cifar10", "svhn"]}, {"evaluate__shift": True})
    plan = make_plan([configure(tmp_path, "kd", **options) for options in asked])
    (config,) = plan.students.values()
    assert config["evaluate"] == {"diagnostics": None, "shift": True, "ood": ["svhn", "cifar10"]}


@pytest.mark.slow
def test_a_sweep_asks_its_finished_runs(tmp_path: Path) -> None:
    command = ("-m", "method=kd", "seed=0,1", *TINY, "sweep.workers=2")
    assert Head(*command, runs=tmp_path).ends() == 0
    files = {seed: trained_files(one(tmp_path, f"*-kd-s{seed}-*")) for seed in (0, 1)}
    plan = Head(*command, "evaluate.shift=true", "harness.plan=true", runs=tmp_path)
    assert plan.ends() == 0
    assert "2 runs: 0 done before, 2 to run (2 of them trained before, only to be evaluated), 0 teachers" in plan.said
    impossible = Head(*command, "evaluate.ood=[svhn]", f"data.root={tmp_path / 'nowhere'}", runs=tmp_path)
    assert impossible.ends() == 1, impossible.said
    assert (
        impossible.said.count(": done, but without all of evaluate.shift and ood, which the same command adds; log ")
        == 2
    )
    assert "2 of 2 runs done" in impossible.said
    asked = Head(*command, "evaluate.shift=true", runs=tmp_path)
    assert asked.ends() == 0, asked.said
    for seed in (0, 1):
        directory = one(tmp_path, f"*-kd-s{seed}-*")
        assert records(tmp_path)[directory.name]["shift"]["student"]
        assert trained_files(directory) == files[seed]
        assert sorted(path.name for path in directory.glob("*.aside")) == []
    again = Head(*command, "evaluate.shift=true", runs=tmp_path)
    assert again.ends() == 0
    assert "2 runs: 2 done before, 0 to run" in again.said
