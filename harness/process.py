"""A run as a process of its own, `python -m harness.job RUN/config.json`: in the pool, and beside others in a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.record import write_atomically

Config = dict[str, Any]


def write_config(directory: Path, config: Config) -> Path:
    """Write what a process or job is to run; paths in it mean the same from any folder (that of the data does so from
    the start, see `settle_paths`). Returns the file.
    """
    config = json.loads(json.dumps(config))
    for key in ("runs", "bank"):
        if config[key] is not None:
            config[key] = str(Path(config[key]).resolve())
    file = directory.resolve() / "config.json"
    write_atomically(file, json.dumps(config))
    return file


def start_run(file: Path, code: Path, threads: int, **environment: str) -> subprocess.Popen:
    """Start the run of a config.json with the code in that folder; its output goes to job.log beside the file.

    `threads` are its share of the cores, unless the user's own OMP_NUM_THREADS or the run's `threads` say otherwise.
    """
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **environment}
    if "SLURM_CPUS_PER_TASK" in environment:
        environment["SLURM_CPUS_PER_TASK"] = str(threads)
    with (file.parent / "job.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "harness.job", str(file)],
            cwd=code,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )
