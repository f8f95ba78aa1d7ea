"""The environment in which SLURM's programs are asked: of this process's, all but what is meant for them.

A user's display settings (SQUEUE_STATES, SLURM_TIME_FORMAT) would filter what they say, defaults (SBATCH_TIMELIMIT) beat
what a script asks for, and what a job that this process runs in was granted would pass to the jobs that it submits.
"""

from __future__ import annotations

import os

from harness.jobs import snapshot

MEANT_FOR_SLURM = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SCONTROL_", "SCANCEL_", "SINFO_")
KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}  # which cluster, and who asks


def for_jobs() -> dict[str, str]:
    """What sbatch sees, and hands on to the job."""
    seen = {k: v for k, v in os.environ.items() if k in KEPT or not k.startswith(MEANT_FOR_SLURM)}
    return seen | {"PYTHONPATH": os.pathsep.join(snapshot.own_path())}


def for_questions() -> dict[str, str]:
    """What a program sees whose answer is read: in no language, times in seconds since the epoch."""
    return for_jobs() | {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}
