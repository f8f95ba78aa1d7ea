"""Settings of every test."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# The tests' networks are so small that threads only wait for each other; child processes inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for processes of their own; and no test may depend on a machine that
    has nothing else to do.
    """
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of many slow tests first: a worker that begins one last is waited for by all the others."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
