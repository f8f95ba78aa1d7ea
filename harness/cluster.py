"""Runs as jobs: on SLURM through submitit, or as processes of this machine. Both tell who lives and who died.

A backend submits runs (directory and configuration), says which of them are alive, how a dead one ended, and
cancels. What a run achieved is not asked of the backend but read from the run's directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness import queue, snapshot
from harness.claim import is_claimed
from harness.config import ConfigError
from harness.record import write_atomically

Config = dict[str, Any]


@dataclass(frozen=True)
class Death:
    """How a job ended that left no result."""

    message: str
    log: str | None = None
    slurm_state: str | None = None
    slurm: dict[str, Any] | None = None


class Backend(Protocol):
    survives: bool  # whether jobs that have not started do so without this process
    jobs: dict[Path, str]  # SLURM's ids of submitted and adopted runs

    def submit(self, todo: dict[Path, Config], after: list[str] | None = None) -> None:
        """Submit runs; with `after`, for when those jobs have ended. Raises ConfigError where they are
        refused.
        """

    def adopt(self, directories: Iterable[Path]) -> set[Path]:
        """Take over those runs that an earlier command submitted, or another process is at."""

    def alive(self) -> dict[Path, str]:
        """Submitted or adopted runs that wait or run: directory -> "waiting", "running" or "held: why"."""

    def death(self, directory: Path) -> Death:
        """How a run's job ended that left no result."""

    def cancel(self, directories: list[Path]) -> None:
        """End runs; those that have begun checkpoint first."""


# What submitit calls by the same name on every cluster; its other options begin with slurm_.
COMMON_PARAMETERS = {
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    "stderr_to_stdout",
}


class Slurm:
    """Job arrays through submitit. `params` are the fields of `hydra/launcher=submitit_slurm`."""

    survives = True

    def __init__(self, params: dict[str, Any], runs: Path):
        import submitit

        params = {key: value for key, value in params.items() if key != "_target_" and value is not None}
        params["stderr_to_stdout"] = True  # one log a run, which is what failures point to
        folder = Path(params.pop("submitit_folder")).resolve()
        self.max_timeouts = params.pop("max_num_timeout", 0)
        self.limit_s = 60.0 * params["timeout_min"]
        self.warning_s = params.get("signal_delay_s", 0)
        self.code = snapshot.take(runs)
        # The warning may come before Python has a handler for it, and would then kill the job.
        python = f"env --ignore-signal=USR2 {sys.executable}"
        try:
            self.executor = submitit.AutoExecutor(
                folder, cluster="slurm", slurm_max_num_timeout=self.max_timeouts, slurm_python=python
            )
        except RuntimeError as error:  # no srun
            raise ConfigError(f"{error} (hydra/launcher=submitit_local needs no SLURM)") from error
        named = {key if key in COMMON_PARAMETERS else f"slurm_{key}": params[key] for key in params}
        named["slurm_setup"] = [*named.get("slurm_setup", []), f"cd {shlex.quote(str(self.code))}"]
        self.parameters = named
        self.jobs = {}

    def submit(self, todo: dict[Path, Config], after: list[str] | None = None) -> None:
        """Submit runs as arrays no larger than the cluster takes."""
        import submitit

        from harness.job import run_job

        parameters = dict(self.parameters)
        if after:
            extra = dict(parameters.get("slurm_additional_parameters", {}))
            parameters["slurm_additional_parameters"] = {**extra, "dependency": "afterany:" + ":".join(after)}
        self.executor.update_parameters(**parameters)
        directories, most = list(todo), queue.largest_array()
        for start in range(0, len(directories), most):
            chunk = directories[start : start + most]
            configs = [absolute(todo[directory]) for directory in chunk]
            n = len(chunk)
            names = [directory.name for directory in chunk]
            limits = ([self.limit_s] * n, [self.warning_s] * n, [self.max_timeouts] * n)
            try:
                jobs = self.executor.map_array(run_job, configs, names, *limits)
            except (
                submitit.core.utils.FailedJobError,
                ValueError,
            ) as error:  # sbatch's no, an unknown option
                raise ConfigError(f"SLURM refused the jobs: {' '.join(str(error).split())}") from error
            for directory, job in zip(chunk, jobs, strict=True):
                self.jobs[directory] = job.job_id
                about = {"job_id": job.job_id, "log": str(job.paths.stdout), "time": time.time()}
                write_atomically(directory / "submission.json", json.dumps(about))

    def adopt(self, directories: Iterable[Path]) -> set[Path]:
        known = {directory: about["job_id"] for directory in directories if (about := submission(directory))}
        live = queue.live_jobs(filter(None, known.values()))
        adopted = {directory: job for directory, job in known.items() if job in live}
        self.jobs.update(adopted)
        return set(adopted)

    def alive(self) -> dict[Path, str]:
        live = queue.live_jobs(self.jobs.values())
        return {directory: condition(*live[job]) for directory, job in self.jobs.items() if job in live}

    def death(self, directory: Path) -> Death:
        job = self.jobs[directory]
        end = queue.ending(job)
        about = submission(directory)
        log = Path(about["log"]) if about else None
        array, _, task = job.partition("_")
        slurm = {
            "job_id": job,
            "array_job_id": array,
            "array_task_id": task or None,
            "node": end.node,
            "restarts": None,
        }
        message = f"job {job} on {end.node or 'no node'} died: {queue.explain(end, log)}"
        return Death(message, str(log) if log else None, end.state, slurm)

    def cancel(self, directories: list[Path]) -> None:
        queue.cancel(self.jobs[directory] for directory in directories if directory in self.jobs)

    def arrays(self) -> list[str]:
        """The job ids that others can depend on."""
        return sorted({job.partition("_")[0] for job in self.jobs.values()})


class Local:
    """Processes of this machine, `workers` at a time, each with a GPU of its own where there are any."""

    survives = False

    def __init__(self, runs: Path, workers: int | None):
        self.jobs: dict[Path, str] = {}
        self.code = snapshot.take(runs)
        gpus = visible_gpus()
        self.workers = workers or len(gpus) or max(1, (os.cpu_count() or 1) // 2)
        self.slots: list[str | None] = [gpus[k % len(gpus)] if gpus else None for k in range(self.workers)]
        self.waiting: dict[Path, Config] = {}
        self.running: dict[Path, tuple[subprocess.Popen, int]] = {}
        self.ended: dict[Path, int] = {}
        self.others: set[Path] = set()

    def submit(self, todo: dict[Path, Config], after: list[str] | None = None) -> None:
        self.waiting.update(todo)

    def adopt(self, directories: Iterable[Path]) -> set[Path]:
        # A claim of another host is the run's own business: it waits, or takes over a dead one.
        adopted = set(filter(claimed_here, directories))
        self.others |= adopted
        return adopted

    def alive(self) -> dict[Path, str]:
        for directory, (process, _) in list(self.running.items()):
            if process.poll() is not None:
                self.ended[directory] = process.returncode
                del self.running[directory]
        taken = {slot for _, slot in self.running.values()}
        for slot in range(self.workers):
            if self.waiting and slot not in taken:
                directory = next(iter(self.waiting))
                self.running[directory] = self.start(directory, self.waiting.pop(directory), slot), slot
        self.others = set(filter(claimed_here, self.others))
        return {
            **dict.fromkeys(self.waiting, "waiting"),
            **dict.fromkeys(self.running, "running"),
            **dict.fromkeys(self.others, "running"),
        }

    def start(self, directory: Path, config: Config, slot: int) -> subprocess.Popen:
        directory.mkdir(parents=True, exist_ok=True)
        config = absolute(config)
        if config["threads"] is None and self.slots[slot] is None:
            config["threads"] = max(1, (os.cpu_count() or 1) // self.workers)
        path = directory.resolve() / "config.json"
        write_atomically(path, json.dumps(config))
        environment = dict(os.environ)
        if self.slots[slot] is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.slots[slot]
        log = directory.resolve() / "job.log"
        about = {"job_id": None, "log": str(log), "time": time.time()}
        write_atomically(directory / "submission.json", json.dumps(about))
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-u", "-m", "harness.job", str(path)],
                cwd=self.code,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the head
            )

    def death(self, directory: Path) -> Death:
        code = self.ended.get(directory)
        said = "is gone" if code is None else f"died by signal {-code}" if code < 0 else f"ended with exit code {code}"
        about = submission(directory)
        return Death(f"its process {said}", about["log"] if about else None)

    def cancel(self, directories: list[Path]) -> None:
        for directory in directories:
            self.waiting.pop(directory, None)
            if directory in self.running:
                self.running[directory][0].terminate()


def condition(state: str, where: str) -> str:
    """What a job's state and node (or reason for waiting), as squeue tells them, mean for its run."""
    if state in ("RUNNING", "COMPLETING"):
        return "running"
    return f"held: {where}" if "held" in where.lower() else "waiting"


def visible_gpus() -> list[str]:
    """The GPUs that runs may be given, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


def claimed_here(directory: Path) -> bool:
    """Whether a living process of this machine is at the run."""
    owner = is_claimed(directory)
    return owner is not None and owner["host"] == socket.gethostname()


def submission(directory: Path) -> dict[str, Any] | None:
    """What an earlier command noted when it submitted the run."""
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        return json.loads((directory / "submission.json").read_text())
    return None


def absolute(config: Config) -> Config:
    """The same run with paths that mean the same from any folder."""
    config = json.loads(json.dumps(config))
    for node, key in ((config, "runs"), (config, "bank"), (config["data"], "root")):
        if node[key] is not None:
            node[key] = str(Path(node[key]).resolve())
    return config
