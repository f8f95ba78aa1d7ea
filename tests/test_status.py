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

from harness.status import scan
from harness.store.attempts import append_event
from harness.store.claim import Claim
from harness.store.record import failure, write_record
from tests.heads import PATIENCE_S, ROOT, wait_for


def finished(directory: Path, status: str = "done") -> None:
    """A record of an older version, as its directory is named."""
    config = {"method": {"name": "kd"}, "data": {"name": "digits"}, "model": "preresnet_tiny", "seed": 0}
    record = failure(config, directory.name.rpartition("-")[2], {"type": "E", "message": "why"}, None)
    write_record(directory, record | {"status": status, "version": 1})


@pytest.mark.slow
def test_thousands_of_runs_cost_a_few_questions_each(tmp_path: Path) -> None:
    """Files opened are counted: a done run is one, and SLURM is asked once for all."""
    runs = tmp_path / "runs"
    for number in range(5000):
        directory = runs / f"digits-preresnet_tiny-kd-s{number}-{number:012x}"
        directory.mkdir(parents=True)
        record = {"version": 1, "hash": f"{number:012x}", "status": "done", "error": {"message": "why", "log": None}}
        text = json.dumps(record | {"config": {"padding": "x" * 4000}}, indent=1)
        if number < 3000:
            (directory / "record.json").write_text(text)
            continue
        (directory / "submission.json").write_text(json.dumps({"job_id": f"77_{number}", "log": "log", "time": 0}))
        append_event(directory, "started", host="h", pid=1, slurm={"job_id": "1", "node": "n1"})
        if number < 4000:
            (directory / "record.json").write_text(text.replace("done", "interrupted"))
    code = (
        "import sys; from collections import Counter; from harness.status import main\n"
        "opened, folder = Counter(), sys.argv[1]\n"
        "def note(event, about):\n"
        "    if event in ('open', 'subprocess.Popen'): opened['run' if folder in str(about[0]) else event] += 1\n"
        "sys.addaudithook(note)\n"
        "assert main([folder, '--json']) == 0\n"
        "print(opened['run'], opened['subprocess.Popen'], file=sys.stderr)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(runs)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert len(shown.stdout.splitlines()) == 5000
    files, questions = map(int, shown.stderr.split())
    assert files <= 3000 + 8 * 2000
    assert questions <= 3


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
    finished(run)
    (run / "claim.json").unlink()
    assert process.wait(60) == 0
    assert "1 runs and teachers: 1 done" in so_far()


@pytest.mark.slow
def test_ctrl_c_ends_watching_quietly(watched) -> None:
    _, process, so_far = watched
    wait_for(lambda: "epoch 1/8" in so_far(), "the first picture", 60)
    so_far.type(b"\x03")
    assert process.wait(PATIENCE_S) == 130
    assert "Traceback" not in so_far()


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.status", str(tmp_path / "nowhere")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 2
    assert shown.stderr == f"error: no folder {tmp_path / 'nowhere'}\n"
