"""Settings of every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The tests' networks are so small that threads only wait for each other; child processes inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2` a file's tests stay together, and those that share the SLURM cluster."""
    for item in items:
        slurm = item.path.parent == Path(__file__).parent / "slurm"
        item.add_marker(pytest.mark.xdist_group("slurm" if slurm else item.path.stem))
