"""`attempts.jsonl`: what happened to a run's jobs, a line each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypedDict

from harness.store.files import Seconds, append, read_json_lines, to_json

ATTEMPTS = "attempts.jsonl"


class Job(TypedDict, total=False):
    """As provenance.slurm describes it; what is unknown is None."""

    job_id: str | None
    array_job_id: str | None
    array_task_id: str | None
    node: str | None


class Fact(TypedDict, total=False):
    """What else may be known: memory_option, of the launcher, granted the job its memory."""

    host: str | None
    memory_option: str | None


class Event(Fact):
    """started, preempted, time_limit, cancelled, ended or died; when; and in which job (None: in none)."""

    event: str
    time: Seconds
    slurm: Job | None


def append_event(directory: Path, event: str, slurm: dict[str, Any] | None, **facts: Any) -> None:
    """Add what happened to a run's job, which provenance.slurm describes."""
    directory.mkdir(parents=True, exist_ok=True)
    append(
        directory / ATTEMPTS,
        to_json({"event": event, "time": time.time(), "slurm": slurm, **facts}) + "\n",
    )


def read_events(directory: Path) -> list[Event]:
    """The lines of `attempts.jsonl`, oldest first; what a dying job cut short is left out. Raises Damaged."""
    return read_json_lines(directory / ATTEMPTS, Event)
