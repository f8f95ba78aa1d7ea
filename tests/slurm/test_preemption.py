"""A job that loses its node goes on where it was, to the very same weights."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurm.lab import Lab
from tests.heads import TINY, Head, events, job_of, records, weights

pytestmark = pytest.mark.slurm
Start = Callable[..., Head]
LONG = ("method=combined", "seed=0", *TINY, "train.epochs=60", "train.checkpoint_every=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs, one after the other in one process that nobody disturbs."""
    head = Head("-m", *LONG, runs=tmp_path_factory.mktemp("undisturbed"))
    assert head.ends() == 0, head.said
    return head.runs


def at_work(head: Head, directory: Path, attempt: int) -> Path:
    """Wait until the given attempt at a run trains and has a checkpoint; returns the run's directory."""

    def ready() -> bool:
        begun = len(events(directory, "started")) == attempt and (directory / "checkpoint.pt").exists()
        return begun and (directory / "progress.json").exists()

    head.until(ready, f"attempt {attempt} at {directory.name}")
    return directory


def appears(head: Head, pattern: str) -> Path:
    return head.until(lambda: list(head.runs.glob(pattern)), f"a run {pattern}")[0]


@contextmanager
def urgent_job(lab: Lab, node: str) -> Iterator[None]:
    """A job of higher priority that takes a whole node."""
    command = ["srun", "--partition=urgent", "--exclusive", f"--nodelist={node}", "sleep", "1"]
    process = subprocess.Popen(command, env=lab.environment, stdin=subprocess.DEVNULL)
    try:
        yield
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()


def test_a_preempted_run_ends_with_the_same_weights(undisturbed: Path, calm: None, start: Start, busy_lab: Lab) -> None:
    head = start(*LONG)
    # A teacher is warned.
    teacher = at_work(head, appears(head, "teachers/*-m0-*"), 1)
    busy_lab.run("scancel", "--signal=USR2", job_of(teacher))
    # The student is warned, then taken without a warning, then gives way to a job of higher priority.
    student = at_work(head, appears(head, "*-combined-*"), 1)
    busy_lab.run("scancel", "--signal=USR2", job_of(student))
    at_work(head, student, 2)
    busy_lab.run("scontrol", "requeue", job_of(student))
    at_work(head, student, 3)
    with urgent_job(busy_lab, events(student)[-1]["slurm"]["node"]):
        head.until(lambda: len(events(student, "preempted")) >= 2, "the student gives way")
    assert head.ends() == 0, head.said

    assert len(events(teacher, "started")) == 2
    assert len(events(student, "started")) == 4
    found = records(head.runs)
    assert found[student.name]["provenance"]["slurm"]["restarts"] == 3
    for record in found.values():
        assert record["status"] == "done"
    for run in (teacher, student):
        other = undisturbed / run.relative_to(head.runs)
        assert weights(run) == weights(other)
        assert "resumed at step" in (run / "run.log").read_text()
        assert len((run / "history.jsonl").read_text().splitlines()) == 60
