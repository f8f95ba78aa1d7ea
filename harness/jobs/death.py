"""Runs whose job ended and left no result: how it ended, and the record that says so."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.jobs import queue
from harness.runtime import gpus, host
from harness.store.aside import clear_damaged, put_back_trained
from harness.store.attempts import append_event, read_events
from harness.store.files import Damaged
from harness.store.record import failure, read_record, settled, write_record


@dataclass(frozen=True)
class Death:
    """How a job ended that left no result."""

    message: str
    log: str | None = None
    slurm_state: str | None = None
    slurm: dict[str, Any] | None = None


def of_job(directory: Path, job: str, end: queue.Ending, log: str | None) -> Death:
    """The death of a run's SLURM job (JOB, or ARRAY_TASK), from how it ended and what its log says."""
    array, _, task = job.partition("_")
    slurm = {"job_id": job, "array_job_id": array, "array_task_id": task or None, "node": end.node, "restarts": None}
    said = queue.explain(end, Path(log) if log else None, memory_option(directory))
    message = f"job {job} on {end.node or 'no node'} died: {said}"
    return Death(message, log, end.state, slurm)


def memory_option(directory: Path) -> str:
    """The launcher's option that granted a run's last attempt its memory, as that noted; the usual one if none did."""
    with contextlib.suppress(Damaged):
        for event in reversed(read_events(directory)):
            if noted := event.get("memory_option"):
                return noted
    return "hydra.launcher.mem_gb"


def of_process(code: int | None, log: str | None, slurm: dict[str, Any] | None = None) -> Death:
    """The death of a run's process by its exit code, None where nobody saw it end."""
    said = "is gone" if code is None else f"died by signal {-code}" if code < 0 else f"ended with exit code {code}"
    if code == -signal.SIGKILL:
        granted = f", {host.memory_option()} how much there is" if slurm else ""
        said += (
            f", as where the host's memory runs out (sweep.pack and data.workers decide how much is needed{granted})"
        )
    file = Path(log) if log else None
    mps = gpus.shared_fate() if code and "CUDA error" in queue.tail(file) else ""
    return Death(f"its process {said}{queue.last_words(file)}{mps}", log, None, slurm)


def bury(directory: Path, config: dict[str, Any], death: Death) -> dict[str, Any]:
    """The record of a run whose job is gone: its own where it wrote one that says how it ended, else a `failed` one,
    which is written here.
    """
    error = {"type": "JobDied", "message": death.message, "log": death.log, "slurm_state": death.slurm_state}
    record = failure(config, directory.name.rpartition("-")[2], error, death.slurm)
    try:
        # The file server knows whether there is one, whatever this machine still believes.
        if not put_back_trained(directory):
            write_record(directory, record, replace=False)
    except FileExistsError:
        if own := settled(directory):
            return own
        with contextlib.suppress(Damaged):
            if read_record(directory) is None:  # it is there, and this machine does not see it yet
                return record
        clear_damaged(directory)
        write_record(directory, record)  # in the place of an interruption
    append_event(directory, "died", slurm=death.slurm, message=death.message)
    return settled(directory) or record
