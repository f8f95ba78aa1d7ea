"""What a user's shell says to SLURM's programs bends neither what the harness asks them nor what its jobs are given."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from harness.jobs import job, queue
from slurm.lab import Lab

pytestmark = pytest.mark.slurm
DISPLAY = {
    "SQUEUE_STATES": "COMPLETED",
    "SQUEUE_PARTITION": "urgent",
    "SQUEUE_NAMES": "other",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_FORMAT2": "jobid",
    "SACCT_FORMAT": "jobname",
    "SCONTROL_FUTURE": "1",
    "SCANCEL_NAME": "other",
    "SCANCEL_STATE": "RUNNING",
    "SLURM_BITSTR_LEN": "1",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_CLUSTERS": "elsewhere",
}


@pytest.fixture
def shell(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This process's environment, turned to the cluster."""
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch


def test_display_settings_do_not_filter_what_the_harness_is_told(lab: Lab, shell: pytest.MonkeyPatch) -> None:
    array = lab.run("sbatch", "--parsable", "--hold", "--array=0-2", "--wrap=true").strip()
    single = lab.run("sbatch", "--parsable", "--hold", "--wrap=true").strip()
    jobs = [*(f"{array}_{task}" for task in range(3)), single]
    for name, value in DISPLAY.items():
        shell.setenv(name, value)
    assert queue.live_jobs(jobs) == dict.fromkeys(jobs, ("PENDING", "(JobHeldUser)"))
    queue.cancel(jobs)
    assert queue.live_jobs(jobs) == {}
    assert queue.remembered(single).state == "CANCELLED"
    lab.wait_until(lambda: single in queue.accounted([single]), "what the accounting knows")


def test_a_warning_before_the_end_that_slurm_tells_is_of_the_limit(lab: Lab, shell: pytest.MonkeyPatch) -> None:
    for name, value in DISPLAY.items():
        shell.setenv(name, value)
    for limit, reason in {"0": "preempted", "10": "preempted", "1": "time_limit"}.items():
        number = lab.run("sbatch", "--parsable", f"--time={limit}", "--output=/dev/null", "--wrap=sleep 60").strip()
        lab.wait_until(lambda number=number: number in lab.run("squeue", "-h", "-t", "RUNNING", "-o", "%i"), "a job")
        shell.setenv("SLURM_JOB_ID", number)
        assert job.reason(signal.SIGUSR2, warning_s=5) == reason
        assert job.reason(signal.SIGTERM, warning_s=5) == "preempted"
        queue.cancel([number])
        assert job.reason(signal.SIGTERM, warning_s=5) == "cancelled"
