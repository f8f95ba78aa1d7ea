"""Runs as SLURM jobs; submitit words what sbatch is asked."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness.config import ConfigError
from harness.jobs import death, queue, request, snapshot
from harness.jobs.array import Array, Content, Refused, known_jobs
from harness.jobs.backend import Config, Shape, pack_jobs
from harness.jobs.death import Death
from harness.jobs.queue import QueueUnreachable
from harness.store.submission import read_submission, write_config

# The warning may come before Python has a handler for it, and would then kill the job. Behind srun, which resets this.
DEAF = """/bin/sh -c 'trap "" USR2; exec "$0" "$@"'"""
# What srun does not take over from the job: newer versions how many cores, with sbatch's --export=NONE all that is here.
SETUP = (
    'if [ -n "$SLURM_CPUS_PER_TASK" ]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi',
    "export PATH SLURM_EXPORT_ENV=ALL",
)

# What submitit calls by the same name on every cluster; its other options begin with slurm_.
COMMON_PARAMETERS = {
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    "stderr_to_stdout",
}


class Slurm:
    """Job arrays of `pack` runs a job. `shape` tells what a run's job asks for; SLURM is asked about
    jobs every `poll_s` seconds. modules: what runs import besides, see snapshot.py.
    """

    survives = True

    def __init__(
        self, shape: Callable[[Path], Shape], runs: Path, pack: int, poll_s: float, modules: Iterable[str] = ()
    ):
        if shutil.which("srun") is None:
            raise ConfigError("no SLURM on this machine: srun is missing (hydra/launcher=submitit_local needs none)")
        self.shape, self.pack, self.poll_s = shape, pack, poll_s
        self.code = snapshot.take(runs, modules)
        self.jobs: dict[Path, str] = {}
        self.unsubmitted: set[Path] = set()
        self.live: dict[str, tuple[str, str]] = {}
        self.asked = -math.inf

    def submit(
        self, todo: dict[Path, Config], after: list[str] | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Submit runs as arrays, one for each shape, no larger than the cluster takes, nor than it has room for."""
        self.unsubmitted |= todo.keys()
        most = queue.largest_array()
        for shape, jobs in pack_jobs(todo, self.shape, self.pack):
            size = most
            while jobs:
                size = min(size, len(jobs))
                try:
                    self.submit_array(shape, jobs[:size], todo, after, check)
                    jobs = jobs[size:]
                except QueueFull as error:
                    if not self.jobs and size == 1:
                        raise ConfigError(str(error)) from error
                    if size == 1:
                        return
                    size //= 2

    def submit_array(
        self,
        shape: Shape,
        packs: list[list[Path]],
        todo: dict[Path, Config],
        after: list[str] | None,
        check: Callable[[], None],
    ) -> None:
        """Raises QueueFull, QueueUnreachable, or ConfigError where SLURM says no, or does not know an option."""
        import submitit

        shape = {key: value for key, value in shape.items() if key != "_target_" and value is not None}
        folder = submitit.core.utils.JobPaths.get_first_id_independent_folder(
            Path(shape.pop("submitit_folder")).resolve()
        )
        array = Array(folder / uuid.uuid4().hex)
        max_timeouts = shape.pop("max_num_timeout", 0)
        python = f"{DEAF} {shape.pop('python', shlex.quote(sys.executable))}"
        shape.setdefault("signal_delay_s", 120)
        shape["stderr_to_stdout"] = True  # one log a job, which is what failures point to
        named = {key if key in COMMON_PARAMETERS else f"slurm_{key}": value for key, value in shape.items()}
        named["slurm_setup"] = [*named.get("slurm_setup", []), *SETUP, *snapshot.enter(self.code)]
        # What a run relies on when it has to go, whatever the site's default.
        added = {**request.additional(shape), "requeue": True}
        if after:
            both = filter(None, (request.options(shape).get("dependency"), "afterany:" + ":".join(after)))
            added["dependency"] = ",".join(both)
        named["slurm_additional_parameters"] = added
        named["slurm_comment"] = " ".join(filter(None, (named.get("slurm_comment"), array.folder.name)))
        executor = submitit.AutoExecutor(
            array.folder, cluster="slurm", slurm_max_num_timeout=max_timeouts, slurm_python=python
        )
        try:
            executor.update_parameters(**named)
        except ValueError as error:
            raise refusal(" ".join(str(error).split())) from error
        content: Content = {
            "packs": [[str(write_config(directory, todo[directory])) for directory in pack] for pack in packs],
            "options": {"warning_s": shape["signal_delay_s"], "max_timeouts": max_timeouts},
        }
        log = str(submitit.core.utils.JobPaths(array.folder, task_id=0).stdout).replace("%t", "0")
        try:
            jobs = array.submit(content, script(executor, array.folder, len(packs)), log, check)
        except Refused as error:
            refused = refusal(str(error))
            if not isinstance(refused, QueueUnreachable):
                array.withdraw()
            raise refused from error
        self.asked = -math.inf
        for pack, job in zip(packs, jobs, strict=True):
            for directory in pack:
                self.jobs[directory] = job
                self.unsubmitted.discard(directory)

    def adopt(self, directories: Iterable[Path]) -> set[Path]:
        known = known_jobs(directories)
        live = queue.live_jobs(known.values())
        adopted = {directory: job for directory, job in known.items() if job in live}
        self.jobs.update(adopted)
        return set(adopted)

    def alive(self) -> dict[Path, str]:
        if time.monotonic() - self.asked > self.poll_s:
            self.live, self.asked = queue.live_jobs(self.jobs.values()), time.monotonic()
        return {directory: condition(*self.live[job]) for directory, job in self.jobs.items() if job in self.live}

    def death(self, directory: Path) -> Death:
        job = self.jobs[directory]
        about = read_submission(directory)
        return death.of_job(directory, job, queue.ending(job), about["log"] if about else None)

    def cancel(self, directories: list[Path]) -> None:
        queue.cancel(self.jobs[directory] for directory in directories if directory in self.jobs)

    def arrays(self) -> list[str]:
        """The job ids that others can depend on."""
        return sorted({job.partition("_")[0] for job in self.jobs.values()})


def script(executor: Any, folder: Path, count: int) -> str:
    """What sbatch is given for an array of so many jobs (one is none), as submitit words its options."""
    writer = executor._executor
    if count > 1:
        writer.parameters["map_count"] = count
    return writer._make_submission_file_text(f"{writer.python} -u -m harness.jobs.array {shlex.quote(str(folder))}", "")


def condition(state: str, where: str) -> str:
    """What a job's state and node (or reason for waiting), as squeue tells them, mean for its run."""
    if state in ("RUNNING", "COMPLETING"):
        return "running"
    return "waiting" if where in ("", "(None)") else f"waiting: {where.strip('()')}"


class QueueFull(RuntimeError):
    """SLURM takes no more jobs for now."""


def refusal(said: str) -> Exception:
    """The error for what sbatch said when it submitted nothing."""
    if "SubmitJob" in said:  # the name of the limit: of this user's jobs, or of a group's
        return QueueFull(f"SLURM refused the jobs: {said}")
    if re.search(r"timed out|unable to contact|connection|temporarily unable", said, re.IGNORECASE):
        return QueueUnreachable(said)
    return ConfigError(f"SLURM refused the jobs: {said}")
