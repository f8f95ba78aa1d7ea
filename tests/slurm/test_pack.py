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
    head = start(
        *("method=raises,exits,slow", "seed=0,1", "train.epochs=4", "train.warmup_epochs=1"),
        *("sweep.pack=6", "hydra.launcher.mem_gb=4", "hydra.launcher.gpus_per_node=1"),
        plugin=True,
    )
    slow = [head.until(lambda k=k: list(head.runs.glob(f"*-slow-s{k}-*")), f"run {k}")[0] for k in (0, 1)]
    bad = [one(head.runs, f"*-{kind}-s{k}-*") for kind in ("raises", "exits") for k in (0, 1)]
    head.until(lambda: all((run / "record.json").exists() for run in bad), "four failed runs")
    head.until(lambda: all((run / "progress.json").exists() for run in slow), "two runs at work")
    (job,) = {job_of(run) for run in (*slow, *bad)}
    busy_lab.run("scancel", "--signal=USR2", job)
    assert head.ends() == 1, head.said

    found = records(head.runs)
    assert "2 of 6 runs done" in head.said
    assert len(re.findall(r"^missing .*-raises-.*: failed: the sky is falling; log ", head.said, re.MULTILINE)) == 2
    assert (
        len(re.findall(r"^missing .*-exits-.*: failed: its process ended with exit code 3; log ", head.said, re.M)) == 2
    )
    for run in slow:
        assert [event["event"] for event in events(run)] == ["started", "preempted", "started", "ended"]
        assert "resumed at step" in (run / "run.log").read_text()
        assert found[run.name]["provenance"]["slurm"]["restarts"] == 1
        assert found[run.name]["provenance"]["threads"] == 1, "two cores among six"
        assert not (run / "claim.json").exists()
    for run in bad:
        assert len(events(run, "started")) == 1, "what had failed is not tried again when the job is requeued"
        assert found[run.name]["provenance"]["slurm"]["job_id"]
    assert len({event["gpus"] for run in (*slow, *bad) for event in events(run, "started")}) == 1
    assert busy_lab.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "State").strip() == "FAILED"
