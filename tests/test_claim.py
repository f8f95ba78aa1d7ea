"""Claims: one process at a time owns a directory, and a dead one's claim is taken over."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import claim
from harness.claim import Claim, Claimed, certainly_dead, is_claimed, read_claim
from tests.heads import ROOT


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
        with Claim(tmp_path, patient=True):
            order.append("second")

    with Claim(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(1.5)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_the_claim_of_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    code = "import os, sys; from harness.claim import Claim; Claim(sys.argv[1]).__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert certainly_dead(read_claim(tmp_path / "claim.json"))
    began = time.monotonic()
    with Claim(tmp_path):
        assert time.monotonic() - began < 0.5


def test_a_silent_claim_of_another_host_is_taken_over_in_time(tmp_path: Path) -> None:
    foreign(tmp_path)
    began = time.monotonic()
    with Claim(tmp_path):
        assert 0.9 < time.monotonic() - began < 5
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


def test_who_was_taken_over_leaves_the_new_claim_alone(tmp_path: Path) -> None:
    with Claim(tmp_path):
        taken = foreign(tmp_path)
        time.sleep(0.5)
        assert read_claim(tmp_path / "claim.json") == taken
    assert read_claim(tmp_path / "claim.json") == taken


@pytest.mark.slow
def test_of_many_takers_one_wins(tmp_path: Path) -> None:
    """Eight processes find a dead claim; each that gets in notes when, and none overlap."""
    foreign(tmp_path)
    code = (
        "import sys, time; from harness import claim; claim.BEAT_S, claim.STALE_S = 0.1, 1.0\n"
        "with claim.Claim(sys.argv[1], patient=True):\n"
        "    began = time.time(); time.sleep(0.2); print(began, time.time())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    takers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    spans = sorted(tuple(map(float, taker.communicate(timeout=60)[0].split())) for taker in takers)
    assert len(spans) == 8
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
