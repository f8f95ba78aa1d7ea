"""Many tiny runs while jobs, nodes and heads are killed at random: in the end each run is done once, and
whole.

HARNESS_CHAOS_RUNS=200 makes it the long version; every run costs some seconds of a core, mostly to import
torch.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from harness.store.record import read_record
from slurm.lab import Lab, LabError
from tests.heads import TINY, Head, directories, events

pytestmark = pytest.mark.slurm
Start = Callable[..., Head]
RUNS = int(os.environ.get("HARNESS_CHAOS_RUNS", "14"))
SEEDS = (20, 21, 22, 23, 24, 25, 26, 27)
RUNS_A_KILL = 1.5
WEIGHTS = {"scancel": 3, "kill -9": 3, "USR2": 3, "requeue": 2, "node": 1, "head": 2}


class Chaos:
    """Kills what a sweep consists of; the same seed, the same choices, as far as the timing allows."""

    def __init__(self, lab: Lab, runs: Path):
        self.lab, self.runs = lab, runs
        self.kills: Counter[str] = Counter()
        self.written: dict[Path, int] = {}  # when each finished run's record was written
        self.rewritten: list[Path] = []

    def strike(self, kind: str, rng: random.Random, head: Head) -> bool:
        """One act of destruction; False where its victim was not there."""
        if kind == "head":
            if head.process.poll() is not None:
                return False
            head.process.kill()
        elif kind == "node":
            name = rng.choice(("n1", "n2"))
            self.lab.kill_node(name)
            time.sleep(1)
            self.lab.start_node(name)
        elif not self.hit_job(kind, rng):
            return False
        self.kills[kind] += 1
        return True

    def hit_job(self, kind: str, rng: random.Random) -> bool:
        """Hit a job that runs, or that has just ended: signals come at any time. False where there is
        none.
        """
        rows = self.lab.run("squeue", "-h", "--array", "--states=RUNNING", "--format=%i %A").splitlines()
        if not rows:
            return False
        job, raw = rng.choice(sorted(rows)).split()
        if kind == "kill -9":
            return self.kill_process(raw)
        command = {
            "scancel": ["scancel"],
            "USR2": ["scancel", "--signal=USR2"],
            "requeue": ["scontrol", "requeue"],
        }
        try:
            self.lab.run(*command[kind], job)
        except LabError:  # it has ended meanwhile
            return False
        return True

    def kill_process(self, job: str) -> bool:
        """Kill the Python process of a job's current attempt."""
        for run in directories(self.runs):
            began = events(run, "started")
            if began and began[-1]["slurm"]["job_id"] == job:
                try:
                    os.kill(began[-1]["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    return False
                return True
        return False

    def watch(self) -> None:
        """Notice records that are written, and finished ones that are written again."""
        for run in directories(self.runs):
            try:
                written = (run / "record.json").stat().st_mtime_ns
                record = read_record(run)
            except FileNotFoundError:
                continue
            if run in self.written and self.written[run] != written:
                self.rewritten.append(run)
            elif record is not None and record["status"] == "done":
                self.written[run] = written


def test_every_run_is_done_once_whatever_is_killed(
    calm: None, start: Start, busy_lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = ",".join(str(seed) for seed in range(RUNS // 2))
    command = ("method=ensemble_kd,supervised", f"seed={seeds}", *TINY, "hydra.launcher.array_parallelism=4")
    chaos = Chaos(busy_lab, tmp_path)
    heads = [start(*command, runs=tmp_path)]
    planned = max(len(SEEDS), int(RUNS / RUNS_A_KILL))
    for seed in SEEDS:
        rng = random.Random(seed)
        for _ in range(planned // len(SEEDS)):
            pause = time.monotonic() + rng.uniform(0.5, 4.0)
            while time.monotonic() < pause:
                chaos.watch()
                time.sleep(0.1)
            if heads[-1].process.poll() is not None:
                heads.append(start(*command, runs=tmp_path))
            (kind,) = rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))
            while not chaos.strike(kind, rng, heads[-1]) and heads[-1].process.poll() is None:
                chaos.watch()
                time.sleep(0.2)
    # Nobody is killed any more. What failed last takes the command once more.
    status = heads[-1].ends()
    while status and len(heads) < planned + 5:
        heads.append(start(*command, runs=tmp_path))
        status = heads[-1].ends(600)
    chaos.watch()

    runs = directories(tmp_path)
    attempts = sum(len(events(run, "started")) for run in runs)
    with capsys.disabled():
        kills = ", ".join(f"{number} {kind}" for kind, number in sorted(chaos.kills.items()))
        print(
            f"\nchaos: {len(runs)} runs and teachers, killed: {kills}; "
            f"{len(heads)} heads, {attempts} attempts, {len(chaos.written)} done"
        )
    assert sum(chaos.kills.values()) >= planned // 2, "most strikes have hit something"
    assert len(chaos.kills) >= 3, "and in several ways"
    assert status == 0, heads[-1].said
    assert f"{RUNS // 2 * 2} of {RUNS // 2 * 2} runs done" in heads[-1].said
    assert len(runs) == RUNS // 2 * 2 + 2
    assert chaos.written.keys() == set(runs)
    assert chaos.rewritten == [], "a finished run has run again"
    for run in runs:
        assert read_record(run)["metrics"]["student"]["test"]["acc"] > 0
        assert np.load(run / "predictions.npz")["test_logits"].shape[1] == 10
        assert load_file(run / "student.safetensors")
        assert len((run / "history.jsonl").read_text().splitlines()) == 2
        assert not (run / "claim.json").exists()
        assert not (run / "checkpoint.pt").exists()
