"""Many processes in one folder, clocks that differ, files that are seen late, an owner that sleeps: every run once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import status
from harness.jobs import death
from harness.jobs.death import Death
from harness.run.run import execute
from harness.runtime.console import Console
from harness.store import claim
from harness.store.attempts import append_event, read_events
from harness.store.claim import Claim, read_claim
from harness.store.identity import run_directory
from harness.store.record import RECORD, check_files, read_record
from harness.sweep import watch
from harness.sweep.watch import Watch
from tests.crowd import Crowd
from tests.damage import MANY
from tests.heads import ROOT, wait_for
from tests.planted import plant
from tests.running import configure

COUNT = 20
QUICK = {"BEAT_S": 0.5, "LOOK_S": 0.1, "STALE_S": 20.0}


def trainings(directory: Path) -> int:
    """How often a run of one epoch was trained, by its log, to which every attempt adds."""
    return (directory / "run.log").read_text().count("epoch 1/1 ")


def once(directory: Path) -> None:
    """Fail unless a run was trained by one process, once, and is whole."""
    record = read_record(directory)
    assert record["status"] == "done"
    check_files(directory, record)
    assert record["provenance"]["attempts"] == 1
    assert trainings(directory) == 1
    assert len((directory / "history.jsonl").read_text().splitlines()) == 1
    assert not [path.name for path in directory.iterdir() if path.name.startswith(".") or "claim" in path.name]


@pytest.mark.slow
def test_twenty_processes_do_every_run_once(tmp_path: Path) -> None:
    """A student with one teacher, in twenty processes that begin together: two trainings in all."""
    config = configure(tmp_path / "runs", "kd", teachers__size=1, threads=1, train__epochs=1)
    crowd = Crowd(config, COUNT, tmp_path / "said", **QUICK)
    ended, said = crowd.ends(), crowd.said()
    for code, text in zip(ended, said, strict=True):
        assert "Traceback" not in text
        assert code == 0 or "is in use: " in text, text
    assert ended.count(0) >= 1
    (student,) = (tmp_path / "runs").glob("*-kd-s0-*")
    (teacher,) = (tmp_path / "runs/teachers").glob("*-m0-*")
    once(student)
    once(teacher)


@pytest.mark.slow
@pytest.mark.skipif(not MANY, reason="twenty interpreters that import torch: HARNESS_FUZZ=1")
def test_twenty_commands_do_every_run_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "method=kd", "train=smoke", "teachers.size=1", "threads=1"]
    command.append(f"runs={tmp_path}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(COUNT)]
    for process in processes:
        said, _ = process.communicate(timeout=1200)
        assert "Traceback" not in said
        assert process.returncode == 0 or "is in use: " in said, said
    once(next(tmp_path.glob("*-kd-s0-*")))
    once(next(tmp_path.glob("teachers/*-m0-*")))


@pytest.mark.slow
def test_who_sleeps_until_another_has_finished_writes_nothing(tmp_path: Path) -> None:
    """It is frozen for longer than a claim lives; the second one takes over, and finishes; then the first wakes."""
    config = configure(tmp_path / "runs", "supervised", threads=1, train__epochs=300)
    quick = {"BEAT_S": 0.1, "LOOK_S": 0.05, "STALE_S": 1.0}
    directory = run_directory(config)
    first = Crowd(config, 1, tmp_path / "first", **quick)
    wait_for(lambda: (directory / "checkpoint.pt").exists(), "a checkpoint")
    os.kill(first.pids[0], signal.SIGSTOP)
    assert not (directory / RECORD).exists(), "it was too quick to be frozen"
    second = Crowd(config, 1, tmp_path / "second", **quick)
    assert second.ends() == [0], second.said()
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert read_record(directory)["provenance"]["attempts"] == 2, "taken over once, and gone on with"
    os.kill(first.pids[0], signal.SIGCONT)
    assert first.ends() == [1]
    (said,) = first.said()
    assert "is in use: taken over during a pause of this process: another one has finished there" in said
    assert "Traceback" not in said
    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == []


# Clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-200.0, 200.0, -86_400.0])
def test_clocks_that_differ_make_nobody_dead_or_alive(
    shift: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status by a clock that is off: the run whose claim is renewed is running, the silent one is not."""
    monkeypatch.setattr(claim, "BEAT_S", 1.0)
    monkeypatch.setattr(claim, "LOOK_S", 0.05)
    alive, silent = tmp_path / "a-aaaaaaaaaaaa", tmp_path / "b-bbbbbbbbbbbb"
    for place in (alive, silent):
        append_event(place, "started", None, host="elsewhere", pid=1)
    foreign = {**Claim(silent).content(), "host": "elsewhere"}
    (silent / claim.CLAIM).write_text(json.dumps(foreign))
    os.utime(silent / claim.CLAIM, (time.time() - 60,) * 2)
    real = time.time
    with Claim(alive):
        monkeypatch.setattr(time, "time", lambda: real() + shift)
        states = {run.name: run.state for run in status.scan(tmp_path)}
        monkeypatch.setattr(time, "time", real)
    assert states == {alive.name: "running", silent.name: "dead"}


# Late news ------------------------------------------------------------------------------------------------------------


@contextmanager
def unseen(path: Path, seconds: float = 3.0) -> Iterator[dict[str, Any]]:
    """A file that this machine does not see yet, as a client of a file server that remembers that there was none: for
    some seconds, or until it changes the directory itself (`touched`), which makes it ask anew. Heartbeats, which are
    those of the other one, see it.
    """
    until = {"time": time.monotonic() + seconds, "looks": 0, "touched": False}
    real_open, real_link = os.open, os.link

    def late(name: Any, *arguments: Any, **options: Any) -> int:
        blind = time.monotonic() < until["time"] and not until["touched"]
        if blind and threading.current_thread() is threading.main_thread() and Path(os.fsdecode(name)) == path:
            until["looks"] += 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return real_open(name, *arguments, **options)

    def link(source: Any, target: Any, **options: Any) -> None:
        try:
            real_link(source, target, **options)
        finally:
            until["touched"] = until["touched"] or Path(target).parent == path.parent

    os.open, os.link = late, link
    try:
        yield until
    finally:
        os.open, os.link = real_open, real_link


class Ended:
    """A backend whose jobs have all ended."""

    survives = False
    unsubmitted: frozenset[Path] = frozenset()

    def __init__(self) -> None:
        self.jobs: dict[Path, str] = {}

    def alive(self) -> dict[Path, str]:
        return {}

    def death(self, directory: Path) -> Death:
        return Death("its process ended with exit code 0")


def test_a_head_that_sees_a_record_late_calls_nobody_dead(tmp_path: Path) -> None:
    config = configure(tmp_path)
    directory = run_directory(config)
    known = plant(directory, config)
    with unseen(directory / RECORD) as seen:
        followed = Watch(Ended(), Console(), "students", {directory: config})
        assert followed.follow(lambda: False, False, lambda some: None)
    assert seen["looks"] > 1, "it was really late"
    assert (followed.done, followed.failed) == (1, 0)
    assert read_record(directory) == known
    assert read_events(directory) == []


def test_a_record_that_is_there_is_not_buried_however_late_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's patience is at an end before the news has come; the file server knows better."""
    monkeypatch.setattr(watch, "SETTLE_S", 0.2)
    config = configure(tmp_path)
    directory = run_directory(config)
    known = plant(directory, config)
    with unseen(directory / RECORD):
        followed = Watch(Ended(), Console(), "students", {directory: config})
        followed.follow(lambda: False, False, lambda some: None)
    assert read_record(directory) == known
    assert (followed.done, followed.failed) == (1, 0)


def test_a_record_that_stays_unseen_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the one above, where even asking anew does not help for a while."""

    def refuse(_: Any, target: Any, **options: Any) -> None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))

    config = configure(tmp_path)
    directory = run_directory(config)
    known = plant(directory, config)
    with unseen(directory / RECORD):
        monkeypatch.setattr(os, "link", refuse)
        death.bury(directory, config, Death("gone"))
        monkeypatch.undo()
    assert read_record(directory) == known


def test_who_sees_a_record_late_does_not_train_again(tmp_path: Path) -> None:
    """It claims the directory, which makes it ask anew, and looks once more before it trains."""
    config = configure(tmp_path, "supervised", threads=1, train__epochs=1)
    known = execute(config, Console())
    directory = run_directory(config)
    log = (directory / "run.log").read_text()
    with unseen(directory / RECORD, 60.0) as seen:
        assert execute(config, Console()) == known
    assert seen["looks"] >= 1
    assert (directory / "run.log").read_text() == log
    assert trainings(directory) == 1


def test_one_who_comes_while_a_claim_is_unseen_does_not_get_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It believes that nobody is there; the file server refuses a second claim."""
    monkeypatch.setattr(claim, "BEAT_S", 0.1)
    monkeypatch.setattr(claim, "LOOK_S", 0.02)
    with Claim(tmp_path) as mine, unseen(tmp_path / claim.CLAIM, 0.3):
        with pytest.raises(claim.Claimed), Claim(tmp_path):
            raise AssertionError("two owners")
        time.sleep(0.4)
        mine.check()
        assert read_claim(tmp_path / claim.CLAIM)["token"] == mine.token
