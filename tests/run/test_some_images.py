"""Runs on some of the train images: runs of their own, with teachers of their own, beside those from before the option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import verify
from harness.config import ConfigError
from harness.run.teachers import teacher_configs
from harness.store.history import read_history
from harness.store.identity import bank_folder, run_directory, run_hash
from harness.store.record import read_record, write_record
from harness.sweep.summary import arms
from tests.running import configure, run


def older(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it was before there was such an option."""
    return {**config, "data": {key: value for key, value in config["data"].items() if key != "train"}}


def test_all_images_are_the_run_that_they_were(tmp_path: Path) -> None:
    every, few, fewer = (configure(tmp_path, data__train=count) for count in (None, 100, 60))
    before = older(every)
    assert run_hash(before) == run_hash(every)
    assert len({run_hash(config) for config in (every, few, fewer)}) == 3
    banked = [{run_directory(teacher) for teacher in teacher_configs(config)} for config in (before, every, few, fewer)]
    assert banked[0] == banked[1]
    assert not banked[1] & banked[2] and not banked[2] & banked[3]
    assert arms([every, before]) == ["kd", "kd"]
    assert arms([before, few, fewer]) == ["kd data.train=None", "kd data.train=100", "kd data.train=60"]


def test_students_and_teachers_are_trained_on_the_same_few(tmp_path: Path) -> None:
    record = run(tmp_path, data__train=60, train__batch_size=20, train__steps_per_epoch=None)
    places = [run_directory(record["config"])]
    places += [bank_folder(record["config"]) / name for name in record["provenance"]["teachers"]]
    assert [read_history(place)[0]["step"] for place in places] == [3] * len(places)
    assert {read_record(place)["provenance"]["data"] for place in places} == {record["provenance"]["data"]}


def test_too_few_for_a_batch_is_said_before_teachers_are_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train\.batch_size=50 is more than the 40 train images$"):
        run(tmp_path, data__train=40)
    assert not (tmp_path / "teachers").exists()
    with pytest.raises(ConfigError, match=r"^data\.train must be at least 1, not 0$"):
        configure(tmp_path, data__train=0)


def test_a_record_from_before_still_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(tmp_path, "supervised")
    directory = run_directory(record["config"])
    write_record(directory, {**record, "config": older(record["config"])})
    assert "train" not in json.loads((directory / "record.json").read_text())["config"]["data"]
    assert verify.main([str(directory)]) == 0, capsys.readouterr().out
