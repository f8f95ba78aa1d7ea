"""What runs inside a job: one run or a pack of them, and a dignified end when the cluster wants its node back.

SLURM warns with SIGUSR2 before a time limit (and before a preemption, where the site is set up so), or with
SIGTERM: the run checkpoints, asks to be requeued and, restarted, goes on. Where SIGTERM comes because the job
was cancelled, or is at its end already, the run checkpoints and waits for it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from harness.jobs import queue, tasks
from harness.jobs.pack import INTERRUPTED, run_pack
from harness.run.crew import Crew
from harness.runtime import gpus, host
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted, StopRequest
from harness.store import provenance
from harness.store.attempts import append_event, read_events
from harness.store.claim import Claimed
from harness.store.identity import run_directory
from harness.store.record import failure, settled, write_record
from harness.store.submission import read_config

LIMIT_MARGIN_S = 60.0  # SLURM may warn a minute early


class TimeLimitReached(RuntimeError):
    """The job reached its time limit more often than it may."""


class RunFailed(RuntimeError):
    """The run ended without a result; raised so that SLURM, too, says FAILED."""


def run_job(folder: Path, paths: list[str], warning_s: float, max_timeouts: int) -> None:
    """Execute, in a SLURM job of the array in that folder, the run of a config.json, or several as processes beside each
    other.

    warning_s is how long before the job's end the warning comes. Raises RunFailed, TimeLimitReached, QueueUnreachable, or
    whatever went wrong in a single run.
    """
    files = [Path(path) for path in paths]
    with StopRequest() as stop:
        if tasks.number() > 0:
            # A task that was asked to stop ends well: srun could else end the first one, before SLURM requeues the job.
            if not tasks.follow(folder, files[0].parent, stop) and not stop():
                raise RunFailed(f"task {tasks.number()} lost the first one")
            return
        interrupted = run_pack(files, stop) if len(files) > 1 else run_alone(folder, files[0], stop)
        if interrupted:
            give_way(interrupted, reason(stop.signal, warning_s), max_timeouts)
    records = [(file.parent.name, settled(file.parent)) for file in files]
    failed = [name for name, record in records if record is not None and record["status"] != "done"]
    if failed:
        raise RunFailed(f"{len(failed)} of {len(files)} runs failed: {', '.join(failed)}")


def run_alone(folder: Path, file: Path, stop: StopRequest) -> list[Path]:
    """Execute a run in this process; returns it where it was interrupted."""
    try:
        with tasks.lead(folder) as crew:
            attempt(file, stop, crew=crew)
    except Interrupted as error:
        print(error)
        return [file]
    return []


def attempt(file: Path, stop: StopRequest, given_its_gpu: bool = False, crew: Crew | None = None) -> None:
    """Execute the run of a config.json, or say that another process is at it. A process that was given its GPU sees no
    other, and calls it cuda:0 whatever the number that the user said. crew: the other tasks of its job.

    Raises RunFailed, Interrupted, or whatever went wrong.
    """
    config = read_config(file)
    if given_its_gpu:
        config["device"] = config["device"].partition(":")[0]
    directory, name = run_directory(config), file.parent.name
    if directory.name != name:
        raise RunFailed(
            f"the code changed while {name} was being submitted (here it is {directory.name}): submit again"
        )
    if directory.resolve() != file.parent.resolve():
        raise RunFailed(
            f"{file} is of a run in another folder ({directory.parent}): it was damaged, or moved; submit again"
        )
    slurm = provenance.slurm()
    here = {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "gpus": os.environ.get(gpus.VISIBLE),
        "memory_option": host.memory_option() if slurm else None,
    }
    append_event(directory, "started", slurm, **here)
    from harness.run.run import execute

    try:
        record = execute(config, Console(), stop, retry_teachers=False, crew=crew)
    except Claimed as error:
        print(f"left to others: {error}")
        return
    append_event(directory, "ended", status=record["status"], slurm=slurm)
    if record["status"] != "done":
        raise RunFailed(f"{directory.name}: {record['status']}: {record['error']['message']}")


def give_way(files: list[Path], event: str, max_timeouts: int) -> None:
    """Have the job requeued for its interrupted runs, and wait for its end.

    event is why it has to go: "time_limit", "preempted" or "cancelled". Raises TimeLimitReached where no run may go
    on after this limit.
    """
    slurm = provenance.slurm()
    refused = []
    for file in files:
        append_event(file.parent, event, slurm=slurm)
        if event == "time_limit" and (message := refusal(file, max_timeouts)):
            refused.append(message)
    if len(refused) == len(files):
        raise TimeLimitReached(refused[0])
    if event != "cancelled":
        queue.requeue(provenance.own_job())
    await_the_end()
    raise RunFailed(f"{event}, but SLURM does not end the job")


def reason(number: int, warning_s: float) -> str:
    """Why SLURM wants this job to stop: "time_limit", "preempted" or "cancelled". Raises QueueUnreachable.

    SLURM says so itself: what was asked for at submission it may have changed, then or later.
    """
    job = queue.standing(provenance.own_job())
    if number != signal.SIGUSR2:
        # Nothing but the job's state tells a cancelled job from one that has to give way.
        return "preempted" if job.state == "RUNNING" else "cancelled"
    at_limit = time.time() > job.ends - warning_s - LIMIT_MARGIN_S
    return "time_limit" if at_limit and not job.preempted else "preempted"  # a grace time is an end, too


def refusal(file: Path, most: int) -> str | None:
    """Why a run may not go on, where it has reached the limit once too often in this job; its record then says so."""
    directory, config, slurm = file.parent, read_config(file), provenance.slurm()
    events = read_events(directory)
    reached = sum(e["event"] == "time_limit" and (e["slurm"] or {}).get("job_id") == slurm["job_id"] for e in events)
    if reached <= most:
        return None
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
    if settled(directory) is None:  # one that is only evaluated has its record
        write_record(directory, failure(config, directory.name.rpartition("-")[2], told, slurm))
    return message


def await_the_end(most_s: float = 600) -> None:
    """Wait to be killed: a job that leaves by itself before SLURM takes it is not requeued."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        time.sleep(0.5)


def main() -> int:
    """`python -m harness.jobs.job RUN/config.json`: a run as a process of its own, in the pool or in a pack."""
    with StopRequest() as stop:
        try:
            attempt(Path(sys.argv[1]), stop, given_its_gpu=True)
        except Interrupted as error:
            print(error)
            return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
