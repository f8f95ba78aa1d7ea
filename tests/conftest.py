"""Settings of every test."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

# The tests' networks are so small that threads only wait for each other; child processes inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
SLURM = Path(__file__).parent / "slurm"


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a cluster's jobs and the heads of sweeps are mostly waited for."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A worker takes a file at a time, or all that shares the cluster; what takes longest first, for a worker that begins
    it last is waited for by all the others.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.parent != SLURM, -slow[item.path]))
    for item in items:
        item.add_marker(
            pytest.mark.xdist_group("slurm" if item.path.parent == SLURM else item.nodeid.partition("::")[0])
        )
