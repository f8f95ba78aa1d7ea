"""A run of several tasks of one job, on several nodes: one claim, one record, one fate."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.lab import Lab
from tests.heads import TINY, Head, events, job_of, records, wait_for

pytestmark = pytest.mark.slurm
Start = Callable[..., Head]
LONG = ("method=combined", "seed=0", *TINY, "train.epochs=12", "train.checkpoint_every=1", "train.steps_per_epoch=5")
TWO_NODES = ("hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1")


def second_task(job: str) -> int:
    """The process of a job's task 1."""
    array, _, task = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={task}"} if task else {f"SLURM_JOB_ID={job}"}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = set((place / "environ").read_bytes().decode(errors="replace").split("\0"))
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if wanted | {"SLURM_PROCID=1"} <= environment and b"harness.jobs.array" in command and b"python" in command:
            return int(place.name)
    return 0


def test_a_run_on_two_nodes_gives_way_loses_one_and_ends_on_one(start: Start, busy_lab: Lab) -> None:
    head = start(*LONG, *TWO_NODES)
    student = head.until(lambda: list(head.runs.glob("*-combined-*")), "a student")[0]
    head.until(lambda: (student / "checkpoint.pt").exists(), "a checkpoint")
    busy_lab.run("scancel", "--signal=USR2", job_of(student))
    head.until(lambda: len(events(student, "started")) == 2, "a second attempt")
    head.until(lambda: "resumed" in (student / "run.log").read_text(), "it goes on")
    os.kill(wait_for(lambda: second_task(job_of(student)), "task 1"), signal.SIGKILL)
    assert head.ends() == 1, head.said
    error = records(head.runs)[student.name]["error"]
    assert error["type"] == "RankLost"
    assert error["message"].startswith("rank 1 (process ")
    assert len(events(student, "preempted")) == 1

    wait_for(lambda: job_of(student) not in busy_lab.run("squeue", "--noheader", "--format=%i"), "the job's end")
    again = start(*LONG, runs=head.runs)
    assert again.ends() == 0, again.said
    record = records(head.runs)[student.name]
    assert (record["status"], record["provenance"]["devices"]) == ("done", 1)
    assert len((student / "history.jsonl").read_text().splitlines()) == 12
    teachers = [found for name, found in records(head.runs).items() if "-set0-" in name]
    assert [found["provenance"]["devices"] for found in teachers] == [2, 2]
