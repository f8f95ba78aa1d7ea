"""The tasks of a SLURM job of one run: each is a rank of it, on the nodes that SLURM chose (`tasks_per_node`, `nodes`).

Where rank 0's store is, the others learn from a file in the run's directory, which all of them see.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TypedDict

from harness.run.crew import Crew, open_store, serve
from harness.runtime.interruption import Stop
from harness.store import provenance
from harness.store.files import read_json, write_json

MEETING = "meeting.json"
PATIENCE_S = 300.0  # of the other tasks for the first


class Meeting(TypedDict):
    """Where the ranks of an attempt meet."""

    job: str
    restarts: int
    host: str
    port: int


def number() -> int:
    """Which of its step's tasks this process is."""
    return int(os.environ.get("SLURM_PROCID", 0))


def count() -> int:
    """How many tasks share this process's run."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def lead(directory: Path) -> Crew:
    """The crew of the other tasks of this job, for the first, which executes the run."""
    if count() == 1:
        return Crew(1)
    # Where srun was started is where the first task is; its address is known to all nodes.
    host = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname()
    store = open_store(host, count())
    meeting: Meeting = {
        "job": provenance.own_job(),
        "restarts": provenance.restarts(),
        "host": host,
        "port": store.port,
    }
    write_json(directory / MEETING, meeting)
    return Crew(count(), store)


def follow(directory: Path, stop: Stop) -> int:
    """Be one of the crew; returns the exit status. Raises TimeoutError where the first task does not say where it is."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = read_json(directory / MEETING, Meeting)
        if found and (found["job"], found["restarts"]) == (provenance.own_job(), provenance.restarts()):
            return serve(found["host"], found["port"], number(), count(), int(os.environ["SLURM_LOCALID"]), stop)
        if stop():
            return 0
        time.sleep(0.2)
    raise TimeoutError(f"task {number()} has not heard of the first one for {PATIENCE_S:.0f} s")
