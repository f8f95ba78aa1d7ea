"""A job array as it lies on disk: all that its jobs need is there before SLURM is asked to take them.

So a head may die at any moment, and no run gets two jobs. Only one thing is noted once sbatch has spoken, which job the
array became, and whoever knows it says so (see `submission.settle`): its head, else the first of its jobs that begins, else
a later head, which finds it in the queue by the array's name or gives it up. A job of an array that was given up
leaves its runs alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from harness.jobs import environment, queue
from harness.jobs.job import RunFailed, TimeLimitReached, run_job
from harness.store import provenance
from harness.store.claim import TakenOver
from harness.store.files import read_json, write_atomically, write_json
from harness.store.submission import SUBMISSION, name_job, read_submission, settle, write_submission

ARRAY, SCRIPT = "array.json", "submit.sh"
SUBMITTING_S = 120.0  # how long to wait for another one's sbatch, and how often to look
LOOK_S = 0.1
OVERTAKEN = "another command submits its runs; run the same one again, which follows them"


class Content(TypedDict):
    """packs: of each job, the config.json of its runs; options: of `run_job`."""

    packs: list[list[str]]
    options: dict[str, Any]


class Refused(RuntimeError):
    """sbatch failed; its message is what it said."""


class Array:
    """A job array in a folder of its own, the name of which SLURM is told too, in the job's comment and command."""

    def __init__(self, folder: Path):
        self.folder = folder

    def submit(self, content: Content, script: str, log: str, check: Callable[[], None]) -> list[str]:
        """Submit it by a script for sbatch; returns its jobs' ids. log: of its jobs, %j in it stands for the id; check:
        raises TakenOver where another command has gone on in the place of this one.

        Raises Refused, where nothing is known of what became of it until `withdraw` or `settle_all` says so, and TakenOver.
        """
        tasks = list(range(len(content["packs"]))) if len(content["packs"]) > 1 else [None]
        write_json(self.folder / ARRAY, content)
        write_atomically(self.folder / SCRIPT, script)
        with self.held() as lock:
            try:
                for task, pack in zip(tasks, content["packs"], strict=True):
                    for file in pack:
                        write_submission(Path(file).parent, None, log, False, array=str(self.folder), task=task)
                check()
            except (FileExistsError, TakenOver) as error:
                self.withdraw()
                raise TakenOver(OVERTAKEN) from error
            done = subprocess.run(
                ["sbatch", str(self.folder / SCRIPT)],
                env=environment.for_jobs(),
                capture_output=True,
                text=True,
                check=False,
                pass_fds=[lock],
            )
            found = re.search(r"job (\d+)", done.stdout)
            if done.returncode or not found:
                raise Refused(" ".join(f"{done.stderr} {done.stdout}".split()) or f"exit code {done.returncode}")
            if settle(self.folder, found[1]) != found[1]:
                queue.cancel([found[1]])
                raise TakenOver(OVERTAKEN)
        return [name_job(found[1], task) for task in tasks]

    def withdraw(self) -> None:
        """Forget it, where SLURM has not taken it."""
        for pack in read_json(self.folder / ARRAY, Content)["packs"]:
            for directory in (Path(file).parent for file in pack):
                if (read_submission(directory) or {}).get("array") == str(self.folder):
                    (directory / SUBMISSION).unlink()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """Mark it as being submitted, for as long as this process or the sbatch that inherits the lock lives."""
        with (self.folder / ARRAY).open("rb+") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def wait(self) -> None:
        """Wait for whoever submits it just now, even if its head is dead."""
        until = time.monotonic() + SUBMITTING_S
        with (self.folder / ARRAY).open("rb+") as file:
            while time.monotonic() < until:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    time.sleep(LOOK_S)
                except OSError:  # a file system without locks
                    return


def known_jobs(directories: Iterable[Path]) -> dict[Path, str]:
    """The jobs that runs were submitted to. Where a head did not live to say which an array became, the queue says it, or
    else the array is given up. Raises QueueUnreachable.
    """
    submissions = {directory: about for directory in directories if (about := read_submission(directory))}
    unsettled = {about["array"] for about in submissions.values() if "array" in about and not about["job_id"]}
    if unsettled:
        settle_all([Array(Path(folder)) for folder in unsettled if (Path(folder) / ARRAY).is_file()])
        submissions = {directory: about for directory in submissions if (about := read_submission(directory))}
    return {directory: about["job_id"] for directory, about in submissions.items() if about["job_id"]}


def settle_all(arrays: list[Array]) -> None:
    for array in arrays:
        array.wait()
    found = queue.find(array.folder.name for array in arrays)
    for array in arrays:
        settle(array.folder, found.get(array.folder.name))


def main() -> int:
    """`python -m harness.jobs.array FOLDER`: what a job of the array does."""
    folder = Path(sys.argv[1])
    job, _, task = provenance.own_job().partition("_")
    if settle(folder, job) != job:
        print(f"job {job} does nothing: its submission was given up for lost, and another job has its runs")
        return 0
    content = read_json(folder / ARRAY, Content)
    try:
        run_job(folder, content["packs"][int(task or 0)], **content["options"])
    except (RunFailed, TimeLimitReached) as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
