"""What a run's job was given, `config.json`, and what its head noted when it submitted it, `submission.json`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TypedDict

from harness.store.face import Configuration
from harness.store.files import Damaged, read_json, to_json, write_json

SUBMISSION, CONFIG = "submission.json", "config.json"


class Submission(TypedDict):
    """job_id: SLURM's, None for a process of this machine; log: of the job; time: of submission, seconds."""

    job_id: str | None
    log: str
    time: float


def write_submission(directory: Path, job_id: str | None, log: str) -> None:
    """Note that a run was submitted."""
    write_json(directory / SUBMISSION, {"job_id": job_id, "log": log, "time": time.time()})


def read_submission(directory: Path) -> Submission | None:
    """What an earlier command noted when it submitted the run; None where there is none, or none to be believed."""
    try:
        return read_json(directory / SUBMISSION, Submission)
    except Damaged:
        return None


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
