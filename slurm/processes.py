"""Processes of this machine by their id: which are a lab's own, and a signal that reaches no others.

They may be gone at any moment, and their ids may then be somebody else's. A lab's own are told by the environment that
they began with: the lab's slurm.conf, which a user's shell and what it starts have too, and one variable more.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

CLUSTER = "lab"
DAEMON = "LAB_DAEMON"  # a daemon's name, for it and what it starts, such as a job's slurmstepd


def read_environment(pid: int) -> dict[str, str]:
    """A process's environment as it began; empty if it is gone, a zombie, or somebody else's."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in content.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}


def read_pid(path: Path) -> int | None:
    """The process id in a pid file, None while it is being written or deleted."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def is_daemon(pid: int, conf: Path, name: str) -> bool:
    """Whether this is the lab's daemon of this name, and it lives: a pid file may outlive its process."""
    variables = read_environment(pid)
    return variables.get("SLURM_CONF") == str(conf) and variables.get(DAEMON) == name


def belongs(pid: int, conf: Path, node: str | None = None) -> bool:
    """Whether this is a node's daemon, a job step on it or a process in one; without `node`, on any, and of this user.

    Clients in a user's shell do not belong, even where that shell is itself a job, of another cluster.
    """
    variables = read_environment(pid)
    if variables.get("SLURM_CONF") != str(conf):
        return False
    here = variables.get("SLURMD_NODENAME") if variables.get("SLURM_CLUSTER_NAME") == CLUSTER else None
    if node is None:
        return (here is not None or DAEMON in variables) and _is_mine(pid)
    return node == here or variables.get(DAEMON) == f"slurmd-{node}"


def processes_of(conf: Path, node: str | None = None) -> list[int]:
    """All processes that `belongs` tells, but this one."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if pid != os.getpid() and belongs(pid, conf, node)]


def _is_mine(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    except OSError:
        return False


def send(pid: int, number: signal.Signals, is_meant: Callable[[], bool]) -> None:
    """Send a signal to a process if it is still there and still the one that is meant."""
    try:
        handle = _open(pid)
        try:
            if not is_meant():
                return
            if handle is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
        finally:
            if handle is not None:
                os.close(handle)
    except ProcessLookupError:
        return


def _open(pid: int) -> int | None:
    """A handle that goes on to mean this very process; None on systems that have no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a container that knows none of it
            return None
        raise
