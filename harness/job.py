"""What runs inside a job: one run, and a dignified end when the cluster wants its node back.

SLURM warns with SIGUSR2 before a time limit (and before a preemption, where the site is set up so), or with
SIGTERM: the run checkpoints, asks to be requeued and, restarted, goes on. Where SIGTERM comes because the job
was cancelled, or is at its end already, the run checkpoints and waits for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from harness import provenance, queue
from harness.claim import Claimed
from harness.config import run_directory, run_hash
from harness.interruption import StopRequest
from harness.progress import Console
from harness.record import append_event, failure, read_events, write_record

LIMIT_MARGIN_S = 60.0  # SLURM may warn a minute early


class TimeLimitReached(RuntimeError):
    """The job reached its time limit more often than it may."""


class RunFailed(RuntimeError):
    """The run ended without a result; raised so that SLURM, too, says FAILED."""


def run_job(
    config: dict[str, Any],
    name: str,
    limit_s: float | None = None,
    warning_s: float = 0,
    max_timeouts: int = 0,
) -> str:
    """Execute a run in a job; returns its status, or "elsewhere" where another job is at it.

    name is that of its directory as the head knows it; limit_s and warning_s are the job's time limit and how
    long before it the warning comes.
    """
    started = time.monotonic()
    directory = run_directory(config)
    if directory.name != name:
        raise RunFailed(
            f"the code changed while {name} was being submitted (here it is {directory.name}): submit again"
        )
    slurm = provenance.slurm()
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    append_event(directory, "started", host=os.uname().nodename, pid=os.getpid(), gpus=gpus, slurm=slurm)
    with StopRequest() as stop:
        from harness.run import execute
        from harness.training import Interrupted

        try:
            record = execute(config, Console(), stop)
        except Claimed as error:
            print(f"left to others: {error}")
            return "elsewhere"
        except Interrupted as error:
            if slurm is None:
                raise
            event = reason(stop.signal, started, limit_s, warning_s)
            append_event(directory, event, slurm=slurm)
            if event == "time_limit":
                refuse_beyond(max_timeouts, config, directory, slurm, error)
            if event != "cancelled":
                queue.requeue(queue.own_job())
            await_the_end()
            raise
    append_event(directory, "ended", status=record["status"], slurm=slurm)
    if record["status"] != "done":
        raise RunFailed(f"{directory.name}: {record['status']}: {record['error']['message']}")
    return record["status"]


def reason(number: int, started: float, limit_s: float | None, warning_s: float) -> str:
    """Why SLURM wants a job to stop: "time_limit", "preempted" or "cancelled"."""
    if number != signal.SIGUSR2:
        # Nothing but the job's state tells a cancelled job from one that has to give way.
        return "preempted" if queue.remembered(queue.own_job()).state == "RUNNING" else "cancelled"
    at_limit = limit_s is not None and time.monotonic() - started > limit_s - warning_s - LIMIT_MARGIN_S
    return "time_limit" if at_limit else "preempted"


def refuse_beyond(most: int, config: dict[str, Any], directory: Path, slurm: dict[str, Any], error: Exception) -> None:
    """Raise TimeLimitReached, with a record that says so, where this limit was one too many."""
    events = read_events(directory)
    reached = sum(e["event"] == "time_limit" and e["slurm"]["job_id"] == slurm["job_id"] for e in events)
    if reached <= most:
        return
    message = (
        f"time limit reached {reached} times, hydra.launcher.max_num_timeout={most}; the checkpoint is kept, "
        "and the same command goes on from it"
    )
    told = {
        "type": "TimeLimitReached",
        "message": message,
        "log": str(directory / "run.log"),
        "slurm_state": "TIMEOUT",
    }
    write_record(directory, failure(config, run_hash(config), told, slurm))
    raise TimeLimitReached(message) from error


def await_the_end(most_s: float = 600) -> None:
    """Wait to be killed: a job that leaves by itself before SLURM takes it is not requeued."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        time.sleep(0.5)


def main() -> int:
    """`python -m harness.job CONFIG.json`: a run as a process of its own, for the pool on this machine."""
    config = json.loads(Path(sys.argv[1]).read_text())
    from harness.training import Interrupted

    try:
        run_job(config, Path(sys.argv[1]).parent.name)
    except Interrupted:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
