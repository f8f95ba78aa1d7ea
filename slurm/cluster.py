"""The life of a one-machine cluster: its daemons start, nodes die and come back, everything ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm.configuration import LabError, Shape, user_name, write_configuration

# Which Debian package brings which program.
PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}

# A throw-away database need not survive a power cut, and waiting for a busy disk costs seconds.
UNSAFE_BUT_FAST = (
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-innodb-doublewrite",
    "--sync-frm=0",
)


class NotInstalledError(LabError):
    """SLURM's daemons are not installed on this machine."""


class Lab:
    """A cluster in ``folder``; as a context manager it starts on entry, and stops on exit.

        with Lab(nodes=2) as lab:
            subprocess.run(["srun", "-N2", "hostname"], env=lab.environment, timeout=60)

    Without ``folder`` a fresh one is made in the temporary directory, and removed again on exit. Give a path
    of at most 80 characters that every user may enter: munged insists on both. ``shape`` are the fields of
    `Shape`, for when the cluster starts; to look at or stop one that runs, ``Lab(folder)`` is enough.
    """

    def __init__(self, folder: Path | str | None = None, **shape: Any) -> None:
        self._own_folder = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="slurm-lab-")).resolve()
        self.shape = Shape(**shape)

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder)

    # What is there

    @property
    def conf(self) -> Path:
        """The cluster's slurm.conf, which is all that a client needs to know."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, turned to the lab, without traces of a job that we run in ourselves."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        # Debian puts the daemons in sbin, which a plain user's PATH often lacks.
        return kept | {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{kept.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        }

    def daemons(self) -> dict[str, int]:
        """Process ids of the daemons that are alive, by name (``slurmctld``, ``slurmd-n1``, ...)."""
        pids = {path.stem: _read_pid(path) for path in sorted(self.folder.glob("run/*.pid"))}
        return {name: pid for name, pid in pids.items() if pid is not None and self._ours(pid)}

    def node_names(self) -> list[str]:
        """Names of the nodes of the cluster as it was started."""
        names = [path.name.removeprefix("spool-") for path in self.folder.glob("spool-*")]
        return sorted(names, key=lambda name: int(name[1:]))

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
        if "slurmctld" in self.daemons():
            for name in self.node_names():
                self.start_node(name)
            return False
        self._check_folder()
        self.stop()
        for log in self.folder.glob("log/*.log"):
            log.unlink()
        try:
            write_configuration(self.folder, self.shape)
            self._start_daemons()
        except LabError as error:
            tails = self.log_tails()
            self.stop()
            raise LabError(f"the lab did not start: {error}\n{tails}") from error
        return True

    def stop(self) -> None:
        """End the lab's daemons and jobs, wait until they are gone, and delete all but the logs."""
        # The controller first, so that it does not requeue what dies with the nodes.
        self._end("slurmctld")
        for name in self.node_names():
            self.kill_node(name)
        for name in ("slurmdbd", "mariadbd", "munged"):
            self._end(name)
        for path in (
            self.folder / "run",
            self.folder / "state",
            self.folder / "db",
            *self.folder.glob("spool-*"),
        ):
            if path.exists():
                shutil.rmtree(path)

    def kill_node(self, name: str, jobs: bool = True) -> None:
        """Cut a node's power: its slurmd and its jobs die at once and tell nobody.

        With ``jobs=False`` the node only falls silent, as behind a broken switch: its jobs run on, and SLURM,
        which gives the node up after ``node_timeout``, starts them a second time elsewhere.
        """
        self._check_node(name)
        self._end(f"slurmd-{name}", signal.SIGKILL)
        while jobs and (pids := self._processes_on(name)):
            for pid in pids:
                _send(pid, signal.SIGKILL)
            time.sleep(0.02)

    def start_node(self, name: str) -> None:
        """Start a node's slurmd again; without effect on a node that is alive."""
        self._check_node(name)
        if f"slurmd-{name}" not in self.daemons():
            self._launch("slurmd", "-N", name, "-f", str(self.conf), LAB_NODE=name)

    def stop_controller(self) -> None:
        """The controller goes away, as for an update: nobody answers, and the jobs run on."""
        self._end("slurmctld")

    def start_controller(self) -> None:
        """Start the controller again, with the jobs that it knew."""
        self._launch("slurmctld", "-f", str(self.conf))

    # Below the surface

    def _check_folder(self) -> None:
        """Refuse to take over a folder that is not ours to empty."""
        if len(str(self.folder)) > 80 or any(c.isspace() for c in str(self.folder)):
            raise LabError(f"{self.folder}: give a path of at most 80 characters and no blanks (it holds sockets)")
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
        if not self.folder.is_dir() or self.folder.stat().st_uid != os.getuid():
            raise LabError(f"{self.folder}: not a folder of yours; name another one")
        if any(self.folder.iterdir()) and not self.conf.exists():
            raise LabError(f"{self.folder}: neither empty nor a lab; name another folder")
        self.folder.chmod(0o755)  # munged refuses a socket below a folder that others cannot enter

    def _start_daemons(self) -> None:
        run, log = self.folder / "run", self.folder / "log"
        self._launch(
            "munged",
            f"--socket={run}/munge.sock",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={run}/munged.pid",
            f"--log-file={log}/munged.log",
            f"--seed-file={run}/munge.seed",
        )
        if self.shape.accounting:
            self._start_accounting()
        self._launch("slurmctld", "-c", "-f", str(self.conf))
        for name in self.node_names():
            self.start_node(name)
        idle = dict.fromkeys(self.node_names(), "idle")
        self.wait_until(lambda: self._try_states() == idle, "all nodes idle")

    def _try_states(self) -> dict[str, str]:
        """Node states, or none while the controller does not answer yet."""
        try:
            return self.node_states()
        except LabError:
            return {}

    def _start_accounting(self) -> None:
        database = self.folder / "db"
        server_socket = database / "mariadb.sock"
        user = user_name()
        common = ["--no-defaults", f"--datadir={database}", f"--user={user}", *UNSAFE_BUT_FAST]
        self._launch(
            "mariadb-install-db",
            *common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )
        # In a session of its own: Ctrl-C in the terminal that started the lab must not reach the database.
        self._launch(
            "setsid",
            "--fork",
            "mariadbd",
            *common,
            f"--socket={server_socket}",
            f"--pid-file={self.folder}/run/mariadbd.pid",
            f"--log-error={self.folder}/log/mariadbd.log",
            "--skip-networking",
            "--innodb-lock-wait-timeout=900",
        )
        self.wait_until(server_socket.exists, "mariadbd listens")
        # slurmdbd has no option for the socket; the client library takes it from here.
        self._launch("slurmdbd", MYSQL_UNIX_PORT=str(server_socket))
        self.wait_until(self._registered, "slurmdbd knows the cluster")

    def _registered(self) -> bool:
        """Add the cluster to the accounting database; False while slurmdbd still creates its tables."""
        try:
            self.run("sacctmgr", "--immediate", "add", "cluster", "lab")
        except LabError:
            return False
        return True

    def _launch(self, *command: str, **variables: str) -> None:
        """Run a program that goes to the background by itself; what it says first is in log/start.log."""
        with (self.folder / "log" / "start.log").open("ab") as log:
            done = subprocess.run(
                command,
                env=self.environment | variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=60,
            )
        if done.returncode:
            raise LabError(f"{command[0]}: exit code {done.returncode}")

    def _end(self, name: str, first: signal.Signals = signal.SIGTERM) -> None:
        """End one daemon and wait until it is gone; without effect where it does not run."""
        pid = self.daemons().get(name)
        if pid is None:
            return
        _send(pid, first)
        try:
            self.wait_until(lambda: not self._ours(pid), f"end of {name}", timeout=10)
        except LabError:
            _send(pid, signal.SIGKILL)
            self.wait_until(lambda: not self._ours(pid), f"end of {name}", timeout=10)
        (self.folder / "run" / f"{name}.pid").unlink(missing_ok=True)

    def _check_node(self, name: str) -> None:
        if name not in self.node_names():
            raise LabError(f"no node {name} in {self.folder} (nodes: {', '.join(self.node_names()) or 'none'})")

    def _ours(self, pid: int) -> bool:
        """Whether the process lives and belongs to this lab: a pid file may outlive its process."""
        return _variables(pid).get("SLURM_CONF") == str(self.conf)

    def _processes_on(self, name: str) -> list[int]:
        """A node's job steps and the processes in them; clients in a user's shell are not among them."""
        found = []
        for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            variables = _variables(pid)
            here = name in (variables.get("LAB_NODE"), variables.get("SLURMD_NODENAME"))
            if here and variables.get("SLURM_CONF") == str(self.conf) and pid != os.getpid():
                found.append(pid)
        return found


def check_installed(accounting: bool = True) -> None:
    """Raise NotInstalledError, with the line that installs what is missing, unless a lab can start here."""
    programs = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        raise NotInstalledError(
            f"SLURM is not installed on this machine (no {', '.join(missing)}). On Debian or Ubuntu:\n"
            "  sudo apt-get update && sudo DEBIAN_FRONTEND=noninteractive "
            f"apt-get install --yes --no-install-recommends {' '.join(programs.values())}"
        )


def _variables(pid: int) -> dict[str, str]:
    """A process's environment as it began; empty if it is gone, a zombie, or somebody else's."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in content.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}


def _read_pid(path: Path) -> int | None:
    """The process id in a pid file, None while it is being written or deleted."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
