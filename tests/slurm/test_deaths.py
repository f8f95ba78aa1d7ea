"""Every way in which a job can die or end early: the others go on, and the dead one's record says how and where."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.lab import Lab
from tests.heads import TINY, Head, events, job_of, one, records, weights

pytestmark = pytest.mark.slurm
Start = Callable[..., Head]


# SLURM looks at limits every 30 s: the warning comes after 25 to 55 s.
ONE_MINUTE = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5")


@pytest.fixture(scope="module")
def doomed(start: Start) -> Head:
    """Students that die in every way. Two wait a minute for their time limit, of which SLURM knows alone: begun early,
    judged last.
    """
    return start(
        *("method=raises,exits,hogs,sleeps,slow,supervised", "seed=0", "train.epochs=18", "threads=1"),
        *("+hydra.launcher.additional_parameters.time=1", "hydra.launcher.signal_delay_s=5"),
        *("hydra.launcher.mem_gb=null", "hydra.launcher.mem_per_cpu=1G"),
        "hydra.launcher.max_num_timeout=0",
        "+hydra.job.env_set.TROUBLE=the sea is rising",
        plugin=True,
    )


@pytest.fixture(scope="module")
def overdue(start: Start) -> Head:
    """A run longer than its time limit, which it may reach; this too takes minutes of waiting."""
    return start(
        *("method=slow", "seed=0", "train.epochs=18", "threads=1"),
        *ONE_MINUTE,
        "hydra.launcher.max_num_timeout=3",
        plugin=True,
    )


@pytest.fixture(scope="module")
def orphans(start: Start) -> Head:
    """Three students with a teacher each; one takes more memory than it gets, one reaches its time limit."""
    arms = (
        "teachers.set=0 teachers.model=wrn28_10 hydra.launcher.mem_gb=1",
        "teachers.set=1 +teachers.train.epochs=100000",
        "teachers.set=2",
    )
    return start(
        *("method=kd", "seed=0", *TINY, "teachers.size=1", f"hydra.sweeper.arms={json.dumps(arms)}"),
        *ONE_MINUTE,
        "hydra.launcher.max_num_timeout=0",
    )


@pytest.fixture(scope="module", autouse=True)
def begun(doomed: Head, overdue: Head, orphans: Head) -> None:
    """What waits for a time limit begins before all else, and is judged behind it."""


def test_teachers_die_and_only_their_students_are_missing(start: Start, busy_lab: Lab) -> None:
    head = start(
        *("method=kd", "seed=0", *TINY, "train.epochs=40", "teachers.size=1", "teachers.set=0,1,2,3"),
        "hydra.launcher.array_parallelism=4",
    )
    teachers = [
        head.until(lambda k=k: list(head.runs.glob(f"teachers/*-set{k}-*/claim.json")), f"teacher {k}")[0].parent
        for k in range(4)
    ]
    busy_lab.run("scancel", job_of(teachers[0]))
    os.kill(events(teachers[1])[0]["pid"], signal.SIGKILL)
    busy_lab.run("scontrol", "requeue", job_of(teachers[2]))
    assert head.ends() == 1, head.said
    found = records(head.runs)
    assert [found[teacher.name]["status"] for teacher in teachers] == ["failed", "failed", "done", "done"]
    assert found[teachers[0].name]["error"]["slurm_state"] == "CANCELLED"
    assert "2 of 4 runs done" in head.said
    assert len(re.findall(r"^missing .* not run: its teacher \S+ has failed$", head.said, re.MULTILINE)) == 2
    # The same command again tries what failed, and no more.
    again = start(
        *("method=kd", "seed=0", *TINY, "train.epochs=40", "teachers.size=1", "teachers.set=0,1,2,3"),
        runs=head.runs,
    )
    assert again.ends() == 0, again.said
    assert "4 runs: 2 done before, 2 to run, 2 teachers to train first" in again.said
    assert "4 of 4 runs done" in again.said
    assert len(events(teachers[3], "started")) == 1


@pytest.mark.parametrize(
    ("variant", "kind", "state", "reason"),
    [
        ("raises", "ArithmeticError", "FAILED", "the sea is rising"),
        ("exits", "JobDied", "FAILED", "exit 3:0"),
        ("hogs", "JobDied", "FAILED", "out of memory; give runs more with hydra.launcher.mem_per_cpu"),
        ("sleeps", "JobDied", "TIMEOUT", "TIMEOUT"),
        ("slow", "TimeLimitReached", "FAILED", "time limit reached 1 times"),
    ],
)
def test_a_dead_student_has_a_record(
    doomed: Head, busy_lab: Lab, variant: str, kind: str, state: str, reason: str
) -> None:
    assert doomed.ends() == 1, doomed.said
    run = one(doomed.runs, f"*-{variant}-s0-*")
    record = records(doomed.runs)[run.name]
    assert record["status"] == "failed"
    assert record["error"]["type"] == kind
    assert reason in record["error"]["message"]
    assert Path(record["error"]["log"]).exists()
    assert record["provenance"]["slurm"]["node"] in ("n1", "n2")
    array, task = (record["provenance"]["slurm"][key] for key in ("array_job_id", "array_task_id"))
    assert f"{array}_{task}" == job_of(run)
    told = busy_lab.run("sacct", "-X", "-n", "-P", "-j", job_of(run), "-o", "State").strip()
    assert told == state
    assert bool(record["error"]["traceback"]) == (variant == "raises")
    assert re.search(rf"^missing .*-{variant}-s0-.*failed", doomed.said, re.MULTILINE)


def test_the_others_are_done_and_in_the_table(doomed: Head) -> None:
    assert doomed.ends() == 1, doomed.said
    assert re.search(r"^│ supervised ", doomed.said, re.MULTILINE)
    assert "1 of 6 runs done" in doomed.said


def test_a_teacher_out_of_memory_or_time_costs_only_its_own_students(orphans: Head, busy_lab: Lab) -> None:
    assert orphans.ends() == 1, orphans.said
    found = records(orphans.runs)
    hog, late, good = (one(orphans.runs, f"teachers/*-set{k}-m0-*") for k in range(3))
    assert found[hog.name]["error"]["type"] == "JobDied"
    assert "out of memory" in found[hog.name]["error"]["message"]
    assert found[late.name]["error"]["type"] == "TimeLimitReached"
    assert found[good.name]["status"] == "done"
    for teacher in (hog, late):
        assert re.search(rf"^missing .* not run: its teacher {teacher.name} has failed$", orphans.said, re.MULTILINE)
    assert "1 of 3 runs done" in orphans.said
    assert re.search(r"^│ kd ", orphans.said, re.MULTILINE)
    # What its student asked for, the teacher got; jobs of another shape are another array.
    memory = {
        teacher: busy_lab.run("sacct", "-X", "-n", "-P", "-j", job_of(teacher), "-o", "ReqMem").strip()
        for teacher in (hog, late, good)
    }
    assert memory == {hog: "1G", late: "2G", good: "2G"}
    array = {teacher: job_of(teacher).partition("_")[0] for teacher in (hog, late, good)}
    assert array[hog] != array[late] == array[good]


def test_a_run_that_reaches_its_time_limit_goes_on(overdue: Head, tmp_path: Path) -> None:
    assert overdue.ends() == 0, overdue.said
    run = one(overdue.runs, "*-slow-*")
    limits = events(run, "time_limit")
    assert 1 <= len(limits) <= 3
    assert len(events(run, "started")) == len(limits) + 1
    # The pause changes the run's hash but not its result.
    quick = Head(
        *("method=slow", "method.pause=0", "seed=0", "train.epochs=18", "threads=1"),
        runs=tmp_path / "runs",
        plugin=True,
    )
    assert quick.ends() == 0, quick.said
    other = one(quick.runs, "*-slow-*")
    assert weights(run) == weights(other)


def test_a_dead_nodes_runs_go_on_elsewhere(calm: None, start: Start, busy_lab: Lab) -> None:
    head = start(
        *("method=supervised", "seed=0,1,2", "train.epochs=100", "train.checkpoint_every=2", "threads=1"),
        "hydra.launcher.cpus_per_task=4",  # two fill a node
    )

    def victims() -> list[Path]:
        runs = [path.parent for path in head.runs.glob("*/checkpoint.pt")]
        return [run for run in runs if events(run)[-1]["slurm"]["node"] == "n2"]

    try:
        (victim, *_) = head.until(victims, "a run with a checkpoint on n2")
        busy_lab.kill_node("n2")
        assert head.ends() == 0, head.said
    finally:
        busy_lab.start_node("n2")
    assert "3 of 3 runs done" in head.said
    assert len(events(victim, "started")) == 2
    assert "resumed at step" in (victim / "run.log").read_text()
