"""The life of a one-machine cluster: its daemons start, nodes die and come back, everything ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from slurm import daemons
from slurm.configuration import Shape, user_name, write_configuration
from slurm.errors import LabError
from slurm.files import append_own
from slurm.folder import claim, empty, hold, locate, make, nodes, remove, require
from slurm.installation import check_installed
from slurm.processes import DAEMON, belongs, is_daemon, processes_of, read_pid, send

MEANT_FOR_SLURM = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SCONTROL_", "SCANCEL_", "SINFO_")


class Lab:
    """A cluster in ``folder``; as a context manager it starts on entry, and stops on exit.

        with Lab(nodes=2) as lab:
            subprocess.run(["srun", "-N2", "hostname"], env=lab.environment, timeout=60)

    Without ``folder`` a fresh one is made in the temporary directory, and removed again on exit. A path of yours
    is short, one that every user may enter but only you may write to: munged insists on it. ``shape`` are the
    fields of `Shape`, for when the cluster starts; to look at or stop one that runs, ``Lab(folder)`` is enough.
    """

    def __init__(self, folder: Path | str | None = None, **shape: Any) -> None:
        self.shape = Shape(**shape)
        self._own_folder = folder is None
        self.folder = make() if folder is None else locate(folder)

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as undo:
            undo.callback(self._remove)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._remove()

    def _remove(self) -> None:
        if self._own_folder:
            remove(self.folder)

    # What is there

    @property
    def conf(self) -> Path:
        """The cluster's slurm.conf, which is all that a client needs to know."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, turned to the lab, without the user's settings of SLURM, and without traces of a
        job that we run in ourselves.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith((*MEANT_FOR_SLURM, DAEMON))}
        # Debian puts the daemons in sbin, which a plain user's PATH often lacks.
        return kept | {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{kept.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        }

    def daemons(self) -> dict[str, int]:
        """Process ids of the daemons that are alive, by name (``slurmctld``, ``slurmd-n1``, ...)."""
        pids = {path.stem: read_pid(path) for path in sorted(self.folder.glob("run/*.pid"))}
        return {name: pid for name, pid in pids.items() if pid is not None and is_daemon(pid, self.conf, name)}

    def node_names(self) -> list[str]:
        """Names of the nodes of the cluster as it was started."""
        return nodes(self.folder)

    def node_states(self) -> dict[str, str]:
        """Each node's state as sinfo tells it: ``idle``, ``mixed``, ``down``; ``*``: does not answer."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def log_tails(self, lines: int = 8) -> str:
        """The last lines of every log, for a message about what went wrong."""
        tails = []
        for path in sorted(self.folder.glob("log/*.log")):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            tails.append("\n  ".join([f"{path}:", *last]))
        return "\n".join(tails)

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run a client such as ``sacct`` against the lab and return what it prints.

        Raises:
            LabError: it failed, or took longer than ``timeout`` seconds.
        """
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                timeout=timeout,
                text=True,
                errors="replace",
                capture_output=True,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as expired:
            raise LabError(f"{shlex.join(command)}: no answer within {timeout:g} s") from expired
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise LabError(f"{shlex.join(command)}: exit code {done.returncode}\n{said}")
        return done.stdout

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
        """Poll until ``condition()`` holds; LabError if ``what`` takes more than ``timeout`` s."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {timeout:g} s")
            time.sleep(0.05)

    # Starting and stopping

    def start(self) -> bool:
        """Start the cluster and return once every node is idle; True unless it was running already.

        A running cluster keeps its shape whatever ``shape`` says; nodes of it that died are started again.

        Raises:
            NotInstalledError: SLURM is missing; the message has the command that installs it.
            LabError: anything else, with the tails of the logs.
        """
        check_installed(self.shape.accounting)
        with claim(self.folder):
            if "slurmctld" in self.daemons():
                for name in self.node_names():
                    self.start_node(name)
                return False
            self._end_all()
            empty(self.folder)
            for log in self.folder.glob("log/*.log"):
                log.unlink()
            with contextlib.ExitStack() as undo:
                undo.callback(empty, self.folder)
                undo.callback(self._end_all)
                self._start_all()
                undo.pop_all()
        return True

    def stop(self) -> bool:
        """End the lab's daemons and jobs, wait until they are gone, and delete all but the logs; True if any ran.

        Raises:
            LabError: the folder is there, but is not that of a lab of yours; then nothing is touched.
        """
        if not os.path.lexists(self.folder):  # somebody deleted it, and what runs is told by its environment
            return self._end_all()
        with hold(self.folder):
            ran = self._end_all()
            empty(self.folder)
        return ran

    def kill_node(self, name: str, jobs: bool = True) -> None:
        """Cut a node's power: its slurmd and its jobs die at once and tell nobody.

        With ``jobs=False`` the node only falls silent, as behind a broken switch: its jobs run on, and SLURM,
        which gives the node up after ``node_timeout``, starts them a second time elsewhere.
        """
        self._check_node(name)
        self._end(f"slurmd-{name}", signal.SIGKILL)
        if jobs:
            self._kill_all(name)

    def start_node(self, name: str) -> None:
        """Start a node's slurmd again; without effect on a node that is alive."""
        self._check_node(name)
        if f"slurmd-{name}" not in self.daemons():
            self._launch(f"slurmd-{name}", "slurmd", "-N", name, "-f", str(self.conf))

    def stop_controller(self) -> None:
        """The controller goes away, as for an update: nobody answers, and the jobs run on."""
        require(self.folder)
        self._end("slurmctld")

    def start_controller(self) -> None:
        """Start the controller again, with the jobs that it knew."""
        require(self.folder)
        self._launch("slurmctld", "slurmctld", "-f", str(self.conf))

    # Below the surface

    def _start_all(self) -> None:
        try:
            write_configuration(self.folder, self.shape)
            self._launch("munged", *daemons.munged(self.folder))
            if self.shape.accounting:
                self._start_accounting()
            self._launch("slurmctld", "slurmctld", "-c", "-f", str(self.conf))
            for name in self.node_names():
                self.start_node(name)
            idle = dict.fromkeys(self.node_names(), "idle")
            self.wait_until(lambda: self._try_states() == idle, "all nodes idle")
        except LabError as error:
            raise LabError(f"the lab did not start: {error}\n{self.log_tails()}") from error

    def _try_states(self) -> dict[str, str]:
        """Node states, or none while the controller does not answer yet."""
        try:
            return self.node_states()
        except LabError:
            return {}

    def _start_accounting(self) -> None:
        user, listens = user_name(), daemons.mariadb_socket(self.folder)
        self._launch("mariadb-install-db", *daemons.mariadb_install(self.folder, user))
        self._launch("mariadbd", *daemons.mariadbd(self.folder, user))
        self.wait_until(listens.exists, "mariadbd listens")
        # slurmdbd has no option for the socket; the client library takes it from here.
        self._launch("slurmdbd", "slurmdbd", MYSQL_UNIX_PORT=str(listens))
        self.wait_until(self._registered, "slurmdbd knows the cluster")

    def _registered(self) -> bool:
        """Add the cluster to the accounting database; False while slurmdbd still creates its tables."""
        try:
            self.run("sacctmgr", "--immediate", "add", "cluster", "lab")
        except LabError:
            return False
        return True

    def _launch(self, name: str, *command: str, **variables: str) -> None:
        """Run a program that goes to the background by itself; what it says first is in log/start.log."""
        with append_own(self.folder / "log" / "start.log") as log:
            try:
                done = subprocess.run(
                    command,
                    env=self.environment | variables | {DAEMON: name},
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=60,
                    umask=0o022,  # what they write is nobody else's to change
                )
            except subprocess.TimeoutExpired as expired:
                raise LabError(f"{name}: not in the background within {expired.timeout:g} s") from expired
        if done.returncode:
            raise LabError(f"{name}: exit code {done.returncode}")

    def _end(self, name: str, first: signal.Signals = signal.SIGTERM) -> bool:
        """End one daemon and wait until it is gone; False, and without effect, where it does not run."""
        pid = self.daemons().get(name)
        if pid is None:
            return False

        def lives() -> bool:
            return is_daemon(pid, self.conf, name)

        send(pid, first, lives)
        try:
            self.wait_until(lambda: not lives(), f"end of {name}", timeout=10)
        except LabError:
            send(pid, signal.SIGKILL, lives)
            self.wait_until(lambda: not lives(), f"end of {name}", timeout=10)
        (self.folder / "run" / f"{name}.pid").unlink(missing_ok=True)
        return True

    def _end_all(self) -> bool:
        """End every daemon and job; whether there were any."""
        # The controller first, so that it does not requeue what dies with the nodes.
        ran = self._end("slurmctld")
        for name in self.node_names():
            ran |= self._end(f"slurmd-{name}", signal.SIGKILL)
            ran |= self._kill_all(name)
        for name in ("slurmdbd", "mariadbd", "munged"):
            ran |= self._end(name)
        # Then what no pid file tells of: a start was interrupted, or somebody deleted the folder.
        return self._kill_all() or ran

    def _kill_all(self, node: str | None = None) -> bool:
        """Kill what a node's daemon, or every daemon, started, and wait until it is gone; whether there was any."""
        if not processes_of(self.conf, node):
            return False

        def none_left() -> bool:
            left = processes_of(self.conf, node)
            for pid in left:
                send(pid, signal.SIGKILL, partial(belongs, pid, self.conf, node))
            return not left

        self.wait_until(none_left, f"end of the processes of {node or 'the lab'}")
        return True

    def _check_node(self, name: str) -> None:
        require(self.folder)
        if name not in self.node_names():
            raise LabError(f"no node {name} in {self.folder} (nodes: {', '.join(self.node_names()) or 'none'})")
