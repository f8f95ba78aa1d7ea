"""What a run's job was given, `config.json`, and what its head noted before it submitted it, `submission.json`.

A job of SLURM is noted by its array's folder. Which job of SLURM the array became is known later, and said there once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from pathlib import Path
from typing import Any, TypedDict

from harness.store.face import Configuration
from harness.store.files import Damaged, read_json, to_json, write_json

SUBMISSION, CONFIG = "submission.json", "config.json"
BECAME = "job.json"  # in an array's folder
PATIENCE_S = 2.0  # where there are no hard links, what is written once is not whole at once


class OfAnArray(TypedDict, total=False):
    """array: the folder of the job's array; task: its number there, None where it is the only one."""

    array: str
    task: int | None


class Submission(OfAnArray):
    """job_id: SLURM's, None for a process of this machine, and where no job is known of the array; log: of the job, %j
    in it stands for its id; time: of submission, seconds.
    """

    job_id: str | None
    log: str
    time: float


class Became(TypedDict):
    """job_id: SLURM's of a whole array, None for one that was given up: whatever becomes of it is not to run."""

    job_id: str | None


def write_submission(directory: Path, job_id: str | None, log: str, replace: bool = True, **of_an_array: Any) -> None:
    """Note that a run is submitted. Without `replace` it raises FileExistsError where another one says so."""
    about = {"job_id": job_id, "log": log, "time": time.time(), **of_an_array}
    write_json(directory / SUBMISSION, about, replace=replace)


def read_submission(directory: Path) -> Submission | None:
    """What an earlier command noted when it submitted the run; None where there is none, or none to be believed."""
    try:
        about = read_json(directory / SUBMISSION, Submission)
    except Damaged:
        return None
    if about is None or (array := about.get("array")) is None:
        return about
    with contextlib.suppress(LookupError):
        if job := read_job(Path(array)):
            job = name_job(job, about.get("task"))
            return {**about, "job_id": job, "log": about["log"].replace("%j", job)}
    return about


def name_job(array: str, task: int | None) -> str:
    """The id by which SLURM's commands know a task of an array: JOB, or ARRAY_TASK."""
    return array if task is None else f"{array}_{task}"


def settle(array: Path, job: str | None) -> str | None:
    """Say which job an array became, None: it is given up. Returns what is so: of all who say it, the first is right."""
    with contextlib.suppress(FileExistsError):
        write_json(array / BECAME, {"job_id": job}, replace=False)
    return read_job(array)


@functools.cache
def read_job(array: Path) -> str | None:
    """The job that an array became, None for one that was given up, and where this cannot be read. Raises LookupError
    where it is not known yet.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            became = read_json(array / BECAME, Became)
        except Damaged:
            if time.monotonic() > until:
                return None
            time.sleep(PATIENCE_S / 20)
            continue
        if became is None:
            raise LookupError(f"{array}: nobody has said which job it became")
        return became["job_id"]


def write_config(directory: Path, config: dict[str, Any]) -> Path:
    """Write what a process or job is to run; paths in it mean the same from any folder (that of the data does so from
    the start, see `settle_paths`). Returns the file.
    """
    config = json.loads(json.dumps(config))
    for key in ("runs", "bank"):
        if config[key] is not None:
            config[key] = str(Path(config[key]).resolve())
    file = directory.resolve() / CONFIG
    write_json(file, config)
    return file


def read_config(file: Path) -> dict[str, Any] | None:
    """The configuration in a config.json; None where there is no such file. Raises Damaged."""
    config = read_json(file, Configuration)
    try:
        to_json(config)
    except ValueError as error:
        raise Damaged(f"{file} has numbers that are none") from error
    return config
