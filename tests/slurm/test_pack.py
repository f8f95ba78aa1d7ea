"""Several runs in one SLURM job: each has its own fate, and the job is requeued as one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from slurm.lab import Lab
from tests.heads import Head, events, job_of, one, records

pytestmark = pytest.mark.slurm
Start = Callable[..., Head]


def test_runs_of_one_job_share_a_gpu_a_warning_and_no_fate(start: Start, busy_lab: Lab) -> None:
    arms = '["method=raises","method=exits","method=slow","method=slow method.pause=0.3"]'
    head = start(
        *(f"hydra.sweeper.arms={arms}", "seed=0", "train.epochs=4", "train.warmup_epochs=1", "sweep.pack=4"),
        *("hydra.launcher.mem_gb=8", "hydra.launcher.gpus_per_node=1"),
        plugin=True,
    )
    slow = head.until(lambda: len(found := list(head.runs.glob("*-slow-*"))) == 2 and found, "two directories")
    bad = [one(head.runs, f"*-{kind}-*") for kind in ("raises", "exits")]
    head.until(lambda: all((run / "record.json").exists() for run in bad), "two failed runs")
    head.until(lambda: all((run / "progress.json").exists() for run in slow), "two runs at work")
    told = ("failed: the sky is falling", "ended with exit code 3")
    head.until(lambda: all(text in head.said for text in told), "what has failed is said at once")
    assert not any((run / "record.json").exists() for run in slow), "while the others are at work"
    (job,) = {job_of(run) for run in (*slow, *bad)}
    busy_lab.run("scancel", "--signal=USR2", job)
    assert head.ends() == 1, head.said

    found = records(head.runs)
    assert "2 of 4 runs done" in head.said
    assert re.search(r"^missing .*-raises-.*: failed: the sky is falling; log ", head.said, re.MULTILINE)
    assert re.search(
        r"^missing .*-exits-.*: failed: its process ended with exit code 3.*; log ", head.said, re.MULTILINE
    )
    for run in slow:
        assert [event["event"] for event in events(run)] == ["started", "preempted", "started", "ended"]
        assert "resumed at step" in (run / "run.log").read_text()
        assert found[run.name]["provenance"]["slurm"]["restarts"] == 1
        assert found[run.name]["provenance"]["threads"] == 1, "two cores among four"
        assert not (run / "claim.json").exists()
    for run in bad:
        assert len(events(run, "started")) == 1, "what had failed is not tried again when the job is requeued"
        assert found[run.name]["provenance"]["slurm"]["job_id"]
    assert len({event["gpus"] for run in (*slow, *bad) for event in events(run, "started")}) == 1
    # The accounting may be some seconds late.
    state = ("sacct", "-X", "-n", "-P", "-j", job, "-o", "State")
    busy_lab.wait_until(lambda: busy_lab.run(*state).strip() == "FAILED", "SLURM says FAILED")


def test_runs_of_one_job_are_spread_over_its_gpus(start: Start) -> None:
    head = start(
        *("method=supervised", "seed=0,1,2,3", "train.epochs=1", "train.warmup_epochs=0", "sweep.pack=4"),
        *("hydra.launcher.mem_gb=8", "hydra.launcher.gpus_per_node=2"),
    )
    assert head.ends() == 0, head.said
    runs = list(head.runs.glob("*-supervised-*"))
    assert len({job_of(run) for run in runs}) == 1
    assert sorted(event["gpus"] for run in runs for event in events(run, "started")) == ["0", "0", "1", "1"]
