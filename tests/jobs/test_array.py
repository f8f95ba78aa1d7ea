"""Which job an array became is said once, and a job of one that was given up leaves its runs alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.jobs.array import ARRAY
from harness.store import submission
from harness.store.files import write_json
from harness.store.identity import run_directory
from harness.store.submission import BECAME, read_job, read_submission, settle, write_config, write_submission
from tests.heads import ROOT
from tests.running import configure


def test_the_first_word_counts(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        read_job(tmp_path)
    assert settle(tmp_path, "7") == "7"
    assert settle(tmp_path, None) == "7"
    assert settle(tmp_path, "8") == "7"


def test_a_note_knows_its_job_once_somebody_does(tmp_path: Path) -> None:
    run, array = tmp_path / "run", tmp_path / "array"
    write_submission(run, None, "%j.out", array=str(array), task=3)
    assert read_submission(run)["job_id"] is None
    settle(array, "7")
    assert (read_submission(run)["job_id"], read_submission(run)["log"]) == ("7_3", "7_3.out")
    write_submission(run, None, "%j.out", array=str(array), task=None)
    assert read_submission(run)["job_id"] == "7"


def test_what_cannot_be_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "PATIENCE_S", 0.1)
    (tmp_path / BECAME).write_text('{"job_')
    assert settle(tmp_path, "7") is None


def test_a_job_that_was_given_up_does_nothing(tmp_path: Path) -> None:
    """SLURM took it after its head had died, and the next one had looked for it."""
    config = configure(tmp_path, "supervised")
    file, array = write_config(run_directory(config), config), tmp_path / "array"
    options = {"warning_s": 1, "max_timeouts": 0}
    write_json(array / ARRAY, {"packs": [[str(file)]], "options": options})
    settle(array, None)
    command = [sys.executable, "-m", "harness.jobs.array", str(array)]
    environment = {**os.environ, "SLURM_JOB_ID": "7"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "job 7 does nothing: its submission was given up for lost, and another job has its runs\n"
    assert list(file.parent.iterdir()) == [file]
