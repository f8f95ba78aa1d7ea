"""A run as a process of its own, `python -m harness.jobs.job RUN/config.json`: in the pool, and beside others in a job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.jobs import snapshot
from harness.runtime import gpus, host


def start_run(file: Path, code: Path, threads: int, gpu: str | None) -> subprocess.Popen:
    """Start the run of a config.json with the code in that folder; its output goes to job.log beside the file.

    `threads` are its share of the cores, unless the user's own OMP_NUM_THREADS or the run's `threads` say otherwise.
    `gpu` is the only one that it sees; None: what this process sees.
    """
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": snapshot.import_path(code)}
    if gpu is not None:
        environment[gpus.VISIBLE] = gpu
    environment |= {name: str(threads) for name in host.CORES if name in environment}
    with (file.parent / "job.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "harness.jobs.job", str(file)],
            cwd=code,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )
