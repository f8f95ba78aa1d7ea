"""Claims: one process at a time owns a directory, and a dead one's claim is taken over."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.store import claim
from harness.store.claim import Claim, Claimed, TakenOver, certainly_dead, is_claimed, read_claim
from harness.store.files import write_atomically
from harness.store.identity import run_directory
from tests.heads import ROOT, wait_for
from tests.running import configure


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "BEAT_S", 0.1)
    monkeypatch.setattr(claim, "STALE_S", 1.0)


def foreign(directory: Path, **changes: object) -> dict[str, object]:
    """A claim of a process on another host."""
    content = {**Claim(directory).content(), "host": "elsewhere", "token": "theirs", **changes}
    directory.mkdir(exist_ok=True)
    (directory / "claim.json").write_text(json.dumps(content))
    return content


def test_a_live_claim_is_respected(tmp_path: Path) -> None:
    with Claim(tmp_path):
        assert is_claimed(tmp_path)
        with pytest.raises(Claimed, match=f"process {os.getpid()}"), Claim(tmp_path):
            raise AssertionError("two owners")
    assert is_claimed(tmp_path) is None
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_patient_one_waits_for_its_turn(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with Claim(tmp_path, until=lambda: False):
            order.append("second")

    with Claim(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(1.5)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_it_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    asked = iter((False, False, True))
    with Claim(tmp_path), pytest.raises(Claimed, match=f"process {os.getpid()}"):  # noqa: SIM117  one claims, one waits
        with Claim(tmp_path, until=lambda: next(asked)):
            raise AssertionError("two owners")
    assert not list(asked)


def test_the_claim_of_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    code = "import os, sys; from harness.store.claim import Claim; Claim(sys.argv[1]).__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert certainly_dead(read_claim(tmp_path / "claim.json"))
    with Claim(tmp_path, until=lambda: pytest.fail("it waits")):
        pass


def test_a_silent_claim_of_another_host_is_taken_over_in_time(tmp_path: Path) -> None:
    foreign(tmp_path)
    waited: list[None] = []
    with Claim(tmp_path, until=lambda: waited.append(None)):
        assert waited, "it was taken from the living"
        assert read_claim(tmp_path / "claim.json")["host"] != "elsewhere"


def test_a_damaged_claim_becomes_stale_too(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text("{")
    with Claim(tmp_path):
        assert read_claim(tmp_path / "claim.json")["pid"] == os.getpid()


def test_a_restarted_job_takes_over_from_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    owner = foreign(tmp_path)
    assert owner["job"] == "12_3"
    assert not certainly_dead(owner)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert certainly_dead(owner)


def test_who_was_taken_over_notices_and_leaves_the_new_claim_alone(tmp_path: Path) -> None:
    with Claim(tmp_path) as mine:
        mine.check()
        taken = foreign(tmp_path)
        with pytest.raises(TakenOver, match="on elsewhere is working on it"):
            mine.check()
        assert mine.lost()
        time.sleep(0.5)
        assert read_claim(tmp_path / "claim.json") == taken
    assert read_claim(tmp_path / "claim.json") == taken


@pytest.mark.slow
def test_a_run_that_was_taken_over_stops_and_writes_nothing_more(tmp_path: Path) -> None:
    """One process is frozen; a second takes its run over; the first, awake again, leaves it alone."""
    config = configure(tmp_path, "supervised", train__epochs=300, threads=1)
    directory = run_directory(config)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    code = "import sys; from harness.jobs import job; from harness.store import claim; claim.BEAT_S, claim.STALE_S = 0.2, 2.0\nsys.exit(job.main())"
    command = [sys.executable, "-u", "-c", code, str(directory / "config.json")]

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = begin()
    wait_for(lambda: (directory / "checkpoint.pt").exists(), "a checkpoint")
    first.send_signal(signal.SIGSTOP)
    second = begin()
    wait_for(lambda: (read_claim(directory / "claim.json") or {"pid": None})["pid"] == second.pid, "the takeover")
    first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 0, said
    assert said.splitlines()[-1].startswith("left to others: taken over during a pause of this process: ")
    assert f"process {second.pid} on " in said
    assert "Traceback" not in said
    assert second.poll() is None, "the second one was still at it"
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert "resumed at step" in (directory / "run.log").read_text()
    epochs = [json.loads(row)["epoch"] for row in (directory / "history.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 301))
    assert json.loads((directory / "record.json").read_text())["provenance"]["attempts"] == 2


@pytest.mark.slow
def test_of_many_takers_one_wins(tmp_path: Path) -> None:
    """Eight processes find a dead claim; each that gets in notes when, and none overlap."""
    foreign(tmp_path)
    code = (
        "import sys, time; from harness.store import claim; claim.BEAT_S, claim.STALE_S = 0.1, 1.0\n"
        "with claim.Claim(sys.argv[1], until=lambda: False):\n"
        "    began = time.time(); time.sleep(0.2); print(began, time.time())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    takers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    spans = sorted(tuple(map(float, taker.communicate(timeout=60)[0].split())) for taker in takers)
    assert len(spans) == 8
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


def test_who_is_frozen_in_the_middle_of_writing_does_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk under another name, and then the claim goes to somebody else."""
    file, real = tmp_path / "checkpoint.pt", os.fsync

    def freeze(descriptor: int) -> None:
        real(descriptor)
        (tmp_path / claim.CLAIM).write_text(json.dumps({**mine.content(), "token": "another"}))

    with Claim(tmp_path) as mine:
        write_atomically(file, "first")
        monkeypatch.setattr(os, "fsync", freeze)
        with pytest.raises(TakenOver):
            write_atomically(file, "second")
        monkeypatch.undo()
        assert file.read_text() == "first"
    write_atomically(file, "third")
    assert file.read_text() == "third"
