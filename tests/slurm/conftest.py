"""A real SLURM cluster for the tests in this folder, which are skipped where SLURM is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from slurm.cluster import check_installed
from slurm.lab import Lab, NotInstalledError


def _required(service: str) -> bool:
    return service in os.environ.get("HARNESS_REQUIRE", "").replace(" ", "").split(",")


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skip where SLURM is missing; fail instead if HARNESS_REQUIRE names it, as it does in CI."""
    try:
        check_installed()
    except NotInstalledError as error:
        if _required("slurm"):
            pytest.fail(f"HARNESS_REQUIRE names slurm, but: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def timed_lab(slurm_installed: None) -> Iterator[tuple[Lab, float]]:
    """The cluster of the session, and the seconds that it took to start."""
    began = time.monotonic()
    with Lab() as running:
        yield running, time.monotonic() - began


@pytest.fixture
def lab(timed_lab: tuple[Lab, float]) -> Lab:
    """One cluster of four nodes for all tests of the session; a test that breaks nodes takes its own."""
    return timed_lab[0]
