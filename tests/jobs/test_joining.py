"""A task of a job that comes when the first one has left: no failure where the run is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.jobs import tasks
from harness.run import follower
from harness.store.identity import run_directory
from tests.planted import plant
from tests.running import configure

LATE = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "2"}
LEAD = "import sys; from pathlib import Path; from harness.jobs.tasks import lead; lead(Path(sys.argv[1]))"


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_task_that_is_late(
    status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in LATE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(follower, "CONNECT_S", 0.5)
    config = configure(tmp_path)
    directory = run_directory(config)
    plant(directory, config, status)
    subprocess.run([sys.executable, "-c", LEAD, str(tmp_path)], check=True)
    assert tasks.follow(tmp_path, directory, lambda: False) == (status == "done")
    said = capsys.readouterr()
    assert said.err.startswith("rank 1 lost the others: ")
    assert said.out == (f"task 1 came too late: {directory.name} is done\n" if status == "done" else "")
