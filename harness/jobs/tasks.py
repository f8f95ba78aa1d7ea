"""The tasks of a SLURM job of one run: each is a rank of it, on the nodes that SLURM chose (`tasks_per_node`, `nodes`).

Where rank 0's store is, the others learn from a file in the array's folder, which all of them see.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TypedDict

from harness.run.crew import Crew, open_store
from harness.run.follower import serve
from harness.runtime.interruption import Stop
from harness.store import provenance
from harness.store.files import read_json, write_json
from harness.store.record import settled

MEETING = "meeting-{}.json"  # of a job
PATIENCE_S = 300.0  # of the other tasks for the first


class Meeting(TypedDict):
    """Where the ranks of an attempt of a job meet."""

    restarts: int
    host: str
    port: int


def number() -> int:
    """Which of its step's tasks this process is."""
    return int(os.environ.get("SLURM_PROCID", 0))


def count() -> int:
    """How many tasks share this process's run."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def lead(folder: Path) -> Crew:
    """The crew of the other tasks of this job of the array in that folder, for the first, which executes the run."""
    if count() == 1:
        return Crew(1)
    # Where srun was started is where the first task is; its address is known to all nodes.
    host = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname()
    store = open_store(host, count())
    meeting: Meeting = {"restarts": provenance.restarts(), "host": host, "port": store.port}
    write_json(folder / MEETING.format(provenance.own_job()), meeting)
    return Crew(count(), store)


def follow(folder: Path, directory: Path, stop: Stop) -> bool:
    """Be one of the crew of a run in its directory; returns whether it came to the run's end. Raises TimeoutError where the
    first task does not say where it is.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and not stop():
        found = read_json(folder / MEETING.format(provenance.own_job()), Meeting)
        if found and found["restarts"] == provenance.restarts():
            status = serve(found["host"], found["port"], number(), count(), int(os.environ["SLURM_LOCALID"]), stop)
            return status == 0 or ended(directory)
        time.sleep(0.2)
    if stop():
        return True
    raise TimeoutError(f"task {number()} has not heard of the first one for {PATIENCE_S:.0f} s")


def ended(directory: Path) -> bool:
    """Whether the run is done, so that the first task is not there any more for one that is late; says so."""
    record = settled(directory)
    if done := record is not None and record["status"] == "done":
        print(f"task {number()} came too late: {directory.name} is done")
    return done
