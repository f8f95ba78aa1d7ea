"""`python -m harness.status`: quick on thousands of runs, and right about each."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.claim import Claim
from harness.record import append_event, failure, write_record
from harness.status import scan
from tests.heads import ROOT, wait_for


def finished(directory: Path, status: str = "done") -> None:
    """A record of about the size of a real one."""
    record = failure({"padding": ["x" * 20] * 150}, "0" * 12, {"type": "E", "message": "why"}, None)
    write_record(directory, record | {"status": status})


@pytest.mark.slow
def test_five_thousand_runs_in_two_seconds(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for number in range(5000):
        directory = runs / f"digits-preresnet_tiny-kd-s{number}-{number:012x}"
        directory.mkdir(parents=True)
        record = {"version": 1, "hash": "0", "status": "done", "error": {"message": "why", "log": None}}
        text = json.dumps(record | {"config": {"padding": "x" * 4000}}, indent=1)
        if number < 3000:
            (directory / "record.json").write_text(text)
            continue
        (directory / "submission.json").write_text(json.dumps({"job_id": f"77_{number}", "log": "log", "time": 0}))
        append_event(directory, "started", host="h", pid=1, slurm={"job_id": "1", "node": "n1"})
        if number < 4000:
            (directory / "record.json").write_text(text.replace("done", "interrupted"))
    began = time.monotonic()
    command = [sys.executable, "-m", "harness.status", str(runs), "--json"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    took = time.monotonic() - began
    assert len(shown.stdout.splitlines()) == 5000
    assert took < 2 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), f"{took:.2f} s"


def test_every_state(tmp_path: Path) -> None:
    finished(tmp_path / "a-aaaaaaaaaaaa")
    finished(tmp_path / "b-bbbbbbbbbbbb", "failed")
    finished(tmp_path / "teachers" / "c-cccccccccccc", "diverged")
    (tmp_path / "teachers" / "views").mkdir()  # no run
    (tmp_path / "d-dddddddddddd").mkdir()
    append_event(tmp_path / "e-eeeeeeeeeeee", "started", host="elsewhere", pid=1, slurm=None)
    append_event(tmp_path / "f-ffffffffffff", "started", host="here", pid=1, slurm={"node": "n7"})
    append_event(tmp_path / "f-ffffffffffff", "preempted", slurm=None)
    progress = {"epoch": 3, "epochs": 8, "left_s": 120.0, "time": time.time()}
    (tmp_path / "f-ffffffffffff" / "progress.json").write_text(json.dumps(progress))
    with Claim(tmp_path / "f-ffffffffffff"):
        states = {run.name: run for run in scan(tmp_path)}
    assert {name: run.state for name, run in states.items()} == {
        "a-aaaaaaaaaaaa": "done",
        "b-bbbbbbbbbbbb": "failed",
        "c-cccccccccccc": "diverged",
        "d-dddddddddddd": "waiting",
        "e-eeeeeeeeeeee": "dead",
        "f-ffffffffffff": "running",
    }
    assert states["b-bbbbbbbbbbbb"].note == "why"
    assert "gone without a record" in states["e-eeeeeeeeeeee"].note
    assert states["f-ffffffffffff"].progress.startswith("epoch 3/8, ")
    assert states["f-ffffffffffff"].preempted == 1


def test_a_job_that_nobody_can_ask_about_is_not_called_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "a-aaaaaaaaaaaa"
    append_event(run, "started", host="elsewhere", pid=1, slurm={"job_id": "7", "node": "n1"})
    (run / "submission.json").write_text(json.dumps({"job_id": "7", "log": "log", "time": 0}))
    monkeypatch.setenv("PATH", str(tmp_path))  # no squeue
    (found,) = scan(tmp_path)
    assert (found.state, found.job) == ("waiting", "7")
    assert found.note.startswith("nobody knows of its job: squeue")


def test_a_killed_run_without_a_job_is_dead(tmp_path: Path) -> None:
    (tmp_path / "a-aaaaaaaaaaaa").mkdir()
    (tmp_path / "a-aaaaaaaaaaaa" / "history.jsonl").touch()
    (found,) = scan(tmp_path)
    assert (found.state, found.note) == ("dead", "gone without a record; the sweep's command runs it again")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen, Callable[[], str]]]:
    """A run at work, `--watch` on a terminal of its own, and what that terminal has shown so far."""
    run = tmp_path / "runs" / "a-000000000000"
    append_event(run, "started", host="here", pid=1, slurm=None)
    show_progress(run, 1)
    terminal, inside = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness.status", str(run.parent), "--watch"]
    with Claim(run):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inside)
        shown = bytearray()

        def so_far() -> str:
            while select.select([terminal], [], [], 0)[0]:
                try:
                    shown.extend(os.read(terminal, 65536))
                except OSError:  # the other side is gone
                    break
            return shown.decode()

        so_far.type = lambda text: os.write(terminal, text)
        yield run, process, so_far
    process.kill()
    process.wait()
    os.close(terminal)


def show_progress(run: Path, epoch: int) -> None:
    progress = {"epoch": epoch, "epochs": 8, "left_s": 120.0, "time": time.time()}
    (run / "progress.json").write_text(json.dumps(progress))


@pytest.mark.slow
def test_watching_shows_what_changes_and_ends_with_the_last_run(watched) -> None:
    run, process, so_far = watched
    wait_for(lambda: "epoch 1/8" in so_far(), "the first picture", 60)
    show_progress(run, 5)
    wait_for(lambda: "epoch 5/8" in so_far(), "the second picture", 60)
    assert "\x1b[2J" in so_far().partition("epoch 1/8")[2], "it is drawn in the place of the first"
    (run / "claim.json").unlink()
    finished(run)
    assert process.wait(60) == 0
    assert "1 runs and teachers: 1 done" in so_far()


@pytest.mark.slow
def test_ctrl_c_ends_watching_quietly(watched) -> None:
    _, process, so_far = watched
    wait_for(lambda: "epoch 1/8" in so_far(), "the first picture", 60)
    so_far.type(b"\x03")
    assert process.wait(60) == 130
    assert "Traceback" not in so_far()


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.status", str(tmp_path / "nowhere")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 2
    assert shown.stderr == f"error: no folder {tmp_path / 'nowhere'}\n"
