"""Files that are not what they are taken for: noticed, named, made again, and the result is the one of whole files."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.config import ConfigError
from harness.evaluation import metrics
from harness.run import bank, data
from harness.run.run import execute
from harness.run.teachers import teacher_configs
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted
from harness.store import provenance
from harness.store.aside import BEFORE
from harness.store.checkpoint import CHECKPOINT
from harness.store.claim import Claim
from harness.store.files import Damaged
from harness.store.findings import Findings
from harness.store.history import PROGRESS
from harness.store.identity import run_directory
from harness.store.predictions import PREDICTIONS
from harness.store.record import RECORD, digest_of, read_record
from harness.store.weights import WEIGHTS, write_weights
from harness.sweep.summary import sweep_table
from harness.training.trainer import Diverged
from tests import damage, formats
from tests.faults import failing
from tests.running import configure, run

Record = dict[str, Any]
Config = dict[str, Any]


def start(config: Config, capsys: pytest.CaptureFixture[str]) -> tuple[Record, str]:
    """Run as another process would, which knows nothing yet: the record that it leaves, and what it said."""
    forget()
    capsys.readouterr()
    execute(config, Console())
    return read_record(run_directory(config)), capsys.readouterr().out


def forget() -> None:
    """What a process has looked at once."""
    bank.check_teacher.cache_clear()
    data.load_cached.cache_clear()


def result(record: Record) -> tuple[Any, Any]:
    """What must come out again to the last bit."""
    assert record["status"] == "done"
    return record["metrics"], record["files"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def jsons(folder: Path) -> list[Any]:
    """Every value in every JSON file below a folder; NaN and infinities are none."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in a file")

    files = [path for pattern in ("*.json", "*.jsonl") for path in folder.rglob(pattern)]
    assert files
    texts = [
        line
        for path in files
        for line in (path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()])
    ]
    return [json.loads(text, parse_constant=refuse) for text in texts]


# Checkpoints ----------------------------------------------------------------------------------------------------------


def interrupt(config: Config, steps: int = 4) -> Path:
    """Stop a run after some steps; returns its directory, which has a checkpoint then."""
    asked = iter(range(10_000))
    forget()
    with pytest.raises(Interrupted):
        execute(config, Console(), lambda: next(asked) > steps)
    assert (run_directory(config) / CHECKPOINT).exists()
    return run_directory(config)


def short(runs: Path, seed: int = 0, **changes: Any) -> Config:
    return configure(runs, "supervised", seed=seed, threads=1, **changes)


@pytest.fixture
def undisturbed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, Any]:
    """The result of the short run of seed 0."""
    return result(start(short(tmp_path / "undisturbed"), capsys)[0])


def anothers(path: Path) -> None:
    shutil.copy(interrupt(short(path.parent.parent / "other", seed=1)) / CHECKPOINT, path)


def older(path: Path) -> None:
    """As versions before wrote it: torch's zip, of whatever state."""
    buffer = io.BytesIO()
    torch.save({"student": {}, "step": 999, "epochs": 1}, buffer)
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (anothers, "is of another run"),
        (older, "or of an older version: its digest does not fit"),
        (flip, "its digest does not fit"),
        (cut, "its digest does not fit"),
        (lambda path: path.write_bytes(b""), "its digest does not fit"),
        (lambda path: (path.unlink(), path.mkdir()), "is no file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no file"),
    ],
    ids=["another seed's", "of an older version", "a bit", "cut", "empty", "a directory", "a named pipe"],
)
def test_a_checkpoint_of_something_else_is_not_gone_on_with(
    harm: Callable[[Path], Any],
    says: str,
    tmp_path: Path,
    undisturbed: tuple[Any, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = short(tmp_path)
    directory = interrupt(config)
    harm(directory / CHECKPOINT)
    record, said = start(config, capsys)
    assert says in said
    assert str(directory / CHECKPOINT) in said
    assert record["provenance"]["attempts"] == 1
    assert result(record) == undisturbed
    assert len(list(directory.glob("checkpoint.damaged-*"))) == 1, "it is kept, to be looked into"
    assert not (directory / CHECKPOINT).exists()


def test_a_whole_checkpoint_is_gone_on_with(
    tmp_path: Path, undisturbed: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = short(tmp_path)
    directory = interrupt(config)
    record, said = start(config, capsys)
    assert "damaged" not in said
    assert record["provenance"]["attempts"] == 2
    assert "resumed at step" in (directory / "run.log").read_text()
    assert result(record) == undisturbed


@pytest.mark.parametrize(
    ("place", "answer", "says"),
    [
        ((provenance, "code"), lambda *modules: "0" * 16, f"is of other code ({'0' * 16}, not {provenance.code()})"),
        # One that was set aside and trained again while its student lay there has the same name.
        ((bank.Bank, "weights"), lambda self: {"t": "0" * 64}, f"is of other teachers ({'0' * 16}, not "),
    ],
    ids=["code", "teachers"],
)
def test_a_checkpoint_of_other_code_or_teachers_is_not_gone_on_with(
    place: tuple[Any, str],
    answer: Callable[..., Any],
    says: str,
    tmp_path: Path,
    undisturbed: tuple[Any, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = short(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*place, answer)
        interrupt(config)
    record, said = start(config, capsys)
    assert says in said
    assert record["provenance"]["attempts"] == 1
    assert result(record) == undisturbed


# Folders of images ----------------------------------------------------------------------------------------------------


def folders(runs: Path, photos: Path, **changes: Any) -> Config:
    options = {"data__root": str(photos), "data__image_size": 8, "data__validation": 5, "train__batch_size": 5}
    return configure(runs, "supervised", "folder", threads=1, **options, **changes)


def relabel(photos: Path) -> None:
    """What was an ant is a bee now."""
    (photos / "train/ant").rename(photos / "train/other")
    (photos / "train/bee").rename(photos / "train/ant")
    (photos / "train/other").rename(photos / "train/bee")


def test_images_relabelled_between_attempts_are_trained_on_from_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = formats.write_folders(tmp_path / "photos")
    config = folders(tmp_path / "runs", photos)
    interrupt(config)
    relabel(photos)
    record, said = start(config, capsys)
    assert "is of other data" in said
    assert record["provenance"]["attempts"] == 1
    assert result(record) == result(start(folders(tmp_path / "again", photos), capsys)[0])


def test_a_finished_run_whose_images_changed_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = formats.write_folders(tmp_path / "photos")
    config = folders(tmp_path / "runs", photos)
    record, _ = start(config, capsys)
    again, said = start(config, capsys)
    assert again == record
    assert "note:" not in said
    relabel(photos)
    again, said = start(config, capsys)
    assert again == record, "it is reported as it was"
    assert f"it was trained and tested on other images ({record['provenance']['data']})" in said
    assert str(photos) in said
    shutil.rmtree(photos)
    assert "nobody knows whether its images are still those" in start(config, capsys)[1]


def test_two_folders_are_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = []
    for name in ("first", "second"):
        photos = formats.write_folders(tmp_path / name)
        if name == "second":
            relabel(photos)
        records.append(start(folders(tmp_path / "runs", photos), capsys)[0])
    labels, *_, counts, _ = (list(column.cells) for column in sweep_table(records).columns)
    assert [str(tmp_path / name) in label for name, label in zip(("first", "second"), labels, strict=False)] == [
        True,
        True,
    ]
    assert counts[:2] == ["1", "1"]


def test_force_that_cannot_begin_keeps_what_there_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = formats.write_folders(tmp_path / "photos")
    config = folders(tmp_path / "runs", photos)
    record, _ = start(config, capsys)
    directory = run_directory(config)
    files = {name: (directory / name).read_bytes() for name in (RECORD, WEIGHTS, PREDICTIONS)}
    photos.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(ConfigError):
            start({**config, "force": True}, capsys)
        assert (directory / f"{RECORD}{BEFORE}").read_bytes() == files[RECORD]
        assert all((directory / name).read_bytes() == files[name] for name in (WEIGHTS, PREDICTIONS))
        assert (read_record(directory) or {"status": "none"})["status"] != "done"
    (tmp_path / "elsewhere").rename(photos)
    again, _ = start({**config, "force": True}, capsys)
    assert result(again) == result(record)
    assert not list(directory.glob(f"*{BEFORE}"))


# Teachers -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def banked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Any, Any]]:
    """A folder with two teachers, and the result of a student of theirs."""
    runs = tmp_path_factory.mktemp("banked")
    config = student(runs)
    execute(config, Console())
    return runs, result(read_record(run_directory(config)))


def student(runs: Path, **changes: Any) -> Config:
    return configure(runs, "ensemble_kd", threads=1, **changes)


def deleted(path: Path) -> None:
    path.unlink()


def the_others(path: Path) -> None:
    """The same file of the other teacher."""
    mine = path.parent
    (other,) = (place for place in mine.parent.iterdir() if place != mine and place.name.startswith("digits"))
    shutil.copy(other / path.name, path)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *((name, harm) for name in (WEIGHTS, PREDICTIONS) for harm in (flip, cut, deleted, the_others)),
        *((RECORD, harm) for harm in (flip, cut, the_others)),
    ],
)
def test_a_teacher_that_is_not_what_it_was_is_trained_again(
    name: str,
    harm: Callable[[Path], None],
    tmp_path: Path,
    banked: tuple[Path, tuple[Any, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, expected = banked
    shutil.copytree(whole / "teachers", tmp_path / "teachers")
    config = student(tmp_path)
    teacher = run_directory(teacher_configs(config)[1])
    assert (teacher / RECORD).exists()
    harm(teacher / name)
    record, said = start(config, capsys)
    assert str(teacher) in said
    assert name in said
    assert "starts again" in said or "the teacher is trained again" in said
    assert len(list(teacher.glob("record.damaged-*.json"))) == 1
    assert result(record) == expected
    record, said = start(student(tmp_path, seed=1), capsys)
    assert "again" not in said, "the bank is whole"


def test_a_teacher_without_a_record_is_trained_again(
    tmp_path: Path, banked: tuple[Path, tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(banked[0] / "teachers", tmp_path / "teachers")
    config = student(tmp_path)
    (run_directory(teacher_configs(config)[0]) / RECORD).unlink()
    assert result(start(config, capsys)[0]) == banked[1]


def test_an_error_while_views_are_kept_does_not_change_the_result(
    tmp_path: Path, banked: tuple[Path, tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """At each place where the bank is written to, and for all of them: the student is the same to the last bit."""
    found = set()
    points = [(at, lasting) for lasting in (False, True) for at in range(1, 9, 1 if damage.MANY else 4)]
    for number, (at, lasting) in enumerate([(10**9, False), *points]):
        runs = tmp_path / str(number)
        shutil.copytree(banked[0] / "teachers", runs / "teachers")
        config = student(runs, teachers__cache="views")
        forget()
        with failing(runs / "teachers", at, lasting=lasting) as disk:
            execute(config, Console())
        assert disk.failed or at == 10**9
        record = read_record(run_directory(config))
        assert record["provenance"]["teacher_views"]
        found.add(json.dumps(result(record)))
    assert len(found) == 1
    assert found != {json.dumps(banked[1])}, "views leave a trace: they were really looked up"


# Records and their files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, PREDICTIONS])
def test_a_run_that_lost_its_files_is_not_done(
    name: str, tmp_path: Path, undisturbed: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = short(tmp_path)
    start(config, capsys)
    lost = run_directory(config) / name
    lost.unlink()
    record, said = start(config, capsys)
    assert f"{lost.parent / RECORD} says done, but {name} is gone" in said
    assert result(record) == undisturbed
    assert lost.exists()


def test_records_in_each_others_place_are_set_aside(
    tmp_path: Path, undisturbed: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [short(tmp_path, seed) for seed in (0, 1)]
    before = [start(config, capsys)[0] for config in configs]
    first, second = (run_directory(config) / RECORD for config in configs)
    first.rename(tmp_path / "first")
    second.rename(first)
    (tmp_path / "first").rename(second)
    for config, known, path in zip(configs, before, (first, second), strict=True):
        record, said = start(config, capsys)
        assert f"{path} is the record of another run" in said
        assert result(record) == result(known)
    assert result(before[0]) == undisturbed


def test_a_newer_record_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.__main__ import main

    arguments = ["method=supervised", "train=smoke", "threads=1", f"runs={tmp_path}"]
    assert main(arguments) == 0
    (path,) = tmp_path.glob("*/record.json")
    record = {**json.loads(path.read_text()), "version": 3, "news": 1}
    path.write_text(json.dumps({**record, "digest": digest_of(record)}))
    content = path.read_bytes()
    for command in (arguments, [*arguments, "force=true"], ["-m", *arguments]):
        capsys.readouterr()
        assert main(command) == 1
        shown = "".join(capsys.readouterr())
        assert shown.count(f"{path} is of version 3, this code reads up to 2: upgrade it to read this record") >= 1
        assert "Traceback" not in shown
        assert path.read_bytes() == content
        assert not list(path.parent.glob("*damaged*"))


# Numbers --------------------------------------------------------------------------------------------------------------


def test_a_network_that_bursts_in_its_last_step_has_diverged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody looks at the loss after the last update."""
    options = {"train__lr": 1e30, "train__steps_per_epoch": 1, "train__epochs": 1}
    config = short(tmp_path, **options)
    with pytest.raises(Diverged, match="by step 1, in epoch 1"):
        start(config, capsys)
    assert read_record(run_directory(config))["status"] == "diverged"
    taught = configure(tmp_path, "kd", threads=1, **options)
    with pytest.raises(RuntimeError, match=r"teacher digits-preresnet_tiny-set0-m0-\w+ has diverged: .* step 1"):
        start(taught, capsys)
    assert read_record(run_directory(taught))["status"] == "failed", "the student did nothing wrong"
    assert read_record(run_directory(teacher_configs(taught)[0]))["status"] == "diverged"
    assert len(jsons(tmp_path)) >= 3


def test_what_is_odd_about_one_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from harness.__main__ import main

    photos = formats.write_folders(tmp_path / "photos")
    options = ["data=folder", f"data.root={photos}", "data.image_size=8", "data.validation=3", "train.batch_size=5"]
    assert main(["method=supervised", "train=smoke", "threads=1", f"runs={tmp_path / 'runs'}", *options]) == 0
    assert "note: the validation split has 3 images" in capsys.readouterr().out


def test_a_loss_of_nothing_has_no_sign() -> None:
    assert str(metrics.nll_of_logits(np.array([[0.0, -1e9]]), np.array([0]))) == "0.0"


def test_no_file_holds_a_number_that_is_none(banked: tuple[Path, tuple[Any, Any]]) -> None:
    assert len(jsons(banked[0])) > 6
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"acc": float("nan")})


# Litter ---------------------------------------------------------------------------------------------------------------


def test_the_next_start_removes_what_the_dead_left_and_not_what_the_living_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short(tmp_path)
    directory = run_directory(config)
    directory.mkdir(parents=True)
    token = "0123456789abcdef" * 2
    dead = [*(f".{name}.{token[:12]}" for name in (RECORD, CHECKPOINT, PREDICTIONS, WEIGHTS, PROGRESS)),
            ".probe.1", f".claim.{token}", ".views-0.npy.1.tmp", f".claim.json.{token[:12]}"]  # fmt: skip
    fresh = [".probe.2", f".claim.{token[::-1]}", ".views-0.npy.2.tmp", f".claim.json.{token[12:24]}"]
    own = ["notes.txt", ".hidden", "my.record.json.copy"]
    for name in (*dead, *fresh, *own):
        (directory / name).write_text("x")
    for name in dead:
        os.utime(directory / name, (time.time() - 7200,) * 2)
    start(config, capsys)
    left = {path.name for path in directory.iterdir()}
    assert not left & set(dead)
    assert set(fresh) | set(own) <= left


@pytest.mark.parametrize("name", [CHECKPOINT, PROGRESS, f"{RECORD}{BEFORE}"])
def test_nothing_is_left_beside_a_record(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed after its record and before it had tidied up: the next start does that, and trains nothing."""
    config = short(tmp_path)
    record, _ = start(config, capsys)
    directory = run_directory(config)
    names = {path.name for path in directory.iterdir()}
    shutil.copy(directory / RECORD, directory / name)
    assert start(config, capsys)[0] == record
    assert {path.name for path in directory.iterdir()} == names


def test_who_does_not_own_the_folder_tidies_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = short(tmp_path)
    record, _ = start(config, capsys)
    directory = run_directory(config)
    with Claim(directory):
        (directory / f".{RECORD}.0123456789ab").write_text("x")
        assert start(config, capsys)[0] == record
        assert (directory / f".{RECORD}.0123456789ab").exists()


def test_a_directory_of_another_name_is_not_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = short(tmp_path)
    start(config, capsys)
    copied = tmp_path / "digits-preresnet_tiny-supervised-s0-0123456789ab"
    shutil.copytree(run_directory(config), copied)
    with pytest.raises(Damaged, match="is the record of another run"):
        read_record(copied)


def test_findings_that_were_swapped_are_computed_anew(tmp_path: Path) -> None:
    """Each is whole, and of other teachers."""
    teachers = [tmp_path / name for name in ("a", "b")]
    for k, place in enumerate(teachers):
        write_weights(place, {"w": np.full(3, k, np.float32)}, {})
    kept = [Findings(tmp_path / "found", "code", [place], "data", "cpu") for place in teachers]
    first, second = (find("shift", [], lambda k=k: {"acc": k}) for k, find in enumerate(kept))
    assert (first, second) == ({"acc": 0}, {"acc": 1})
    one, other = sorted((tmp_path / "found").iterdir())
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert [find("shift", [], lambda: {"acc": 7}) for find in kept] == [{"acc": 7}] * 2


def test_no_version_switches_the_digest_off(tmp_path: Path) -> None:
    record = run(tmp_path, "supervised")
    directory = run_directory(record["config"])
    edited = {**record, "version": 1}
    edited["metrics"]["student"]["test"]["acc"] = 0.99
    (directory / "record.json").write_text(json.dumps(edited))
    with pytest.raises(Damaged, match="changed after it was written"):
        read_record(directory)
