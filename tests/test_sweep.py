"""Sweeps without a cluster: one after the other in the head's process, or a pool of processes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.heads import Head, events, one, records

pytestmark = pytest.mark.slow
FEW_EPOCHS = ("train.epochs=2", "train.warmup_epochs=1", "threads=1")
POOL = ("hydra/launcher=submitit_local", "sweep.workers=2")


def with_gpus(names: str) -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": names}


@pytest.mark.parametrize("launcher", [(), POOL], ids=["basic", "pool"])
def test_a_failed_run_takes_no_other_with_it(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    command = ("-m", "method=raises,supervised", "seed=0,1", *FEW_EPOCHS, *launcher)
    head = Head(*command, runs=tmp_path, plugin=True)
    assert head.ends() == 1, head.said
    assert re.search(r"^│ supervised ", head.said, re.MULTILINE)
    assert "2 of 4 runs done" in head.said
    assert len(re.findall(r"^missing .*-raises-.*: failed: the sky is falling; log ", head.said, re.MULTILINE)) == 2
    found = records(tmp_path)
    failed = found[one(tmp_path, "*-raises-s0-*").name]
    assert failed["status"] == "failed"
    assert "ArithmeticError" in failed["error"]["traceback"]
    assert Path(failed["error"]["log"]).exists()
    again = Head(*command, runs=tmp_path, plugin=True)
    assert again.ends() == 1, again.said
    assert "4 runs: 2 done before, 2 to run" in again.said


def test_the_pool_survives_what_ends_a_process_and_gives_each_run_a_gpu(tmp_path: Path) -> None:
    command = ("-m", "method=exits,slow", "seed=0,1", *FEW_EPOCHS, "hydra/launcher=submitit_local")
    head = Head(*command, runs=tmp_path, plugin=True, environment=with_gpus("5,7"))
    assert head.ends() == 1, head.said
    found = records(tmp_path)
    for seed in (0, 1):
        error = found[one(tmp_path, f"*-exits-s{seed}-*").name]["error"]
        assert error["message"].startswith("its process ended with exit code 3")
        assert Path(error["log"]).name == "job.log"
        assert found[one(tmp_path, f"*-slow-s{seed}-*").name]["status"] == "done"
    spans = []
    for seed in (0, 1):
        began, ended = events(one(tmp_path, f"*-slow-s{seed}-*"), "started", "ended")
        spans.append((began["time"], ended["time"], began["gpus"]))
    assert {gpus for *_, gpus in spans} <= {"5", "7"}
    (first, second) = sorted(spans)
    assert second[0] > first[1] or first[2] != second[2]


def test_ctrl_c_lets_started_runs_finish_and_says_how_to_come_back(tmp_path: Path) -> None:
    command = ("-m", "method=slow", "seed=0,1,2", *FEW_EPOCHS, *POOL)
    head = Head(*command, runs=tmp_path, plugin=True)
    head.until(lambda: len(list(tmp_path.glob("*/claim.json"))) == 2, "two runs at work")
    head.send(signal.SIGINT)
    assert head.ends() == 130, head.said
    assert "2 students that have started finish, the others do not start" in head.said
    assert "to reattach: python -m harness -m" in head.said
    again = Head(*command, runs=tmp_path, plugin=True)
    assert again.ends() == 0, again.said
    assert "3 of 3 runs done" in again.said
    assert all(len(events(run, "started")) == 1 for run in tmp_path.glob("*-slow-*"))


def test_a_basic_sweep_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    command = ("-m", "method=slow", "seed=0,1", *FEW_EPOCHS)
    head = Head(*command, runs=tmp_path, plugin=True)
    head.until(lambda: list(tmp_path.glob("*-s0-*/claim.json")), "the first run at work")
    head.send(signal.SIGTERM)
    assert head.ends() == 130, head.said
    assert "the same command goes on from there" in head.said
    again = Head(*command, runs=tmp_path, plugin=True)
    assert again.ends() == 0, again.said
    assert "2 of 2 runs done" in again.said
