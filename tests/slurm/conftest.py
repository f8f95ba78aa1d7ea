"""A real SLURM cluster for the tests in this folder, which are skipped where SLURM is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.cluster import Lab
from slurm.installation import NotInstalledError, check_installed
from tests.heads import Head


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
def lab_of_the_session(slurm_installed: None) -> Iterator[Lab]:
    """One cluster for all tests."""
    with Lab() as running:
        yield running


@pytest.fixture
def lab(lab_of_the_session: Lab) -> Lab:
    """One cluster of four nodes for all tests of the session; a test that breaks nodes takes its own."""
    return lab_of_the_session


@pytest.fixture(scope="session")
def busy_lab(slurm_installed: None) -> Iterator[Lab]:
    """A cluster for sweeps: small arrays, so that every sweep takes several; soon aware of a dead node; no job is requeued
    there that does not ask for it.
    """
    shape = {"nodes": 2, "cpus": 8, "grace_time": 20, "node_timeout": 3, "max_array_size": 6}
    with Lab(**shape, settings={"MessageTimeout": "2", "JobRequeue": "0"}) as running:
        yield running


Start = Callable[..., Head]
# What the shells of the users have, and what bends nothing.
SHELL = {
    "SBATCH_ARRAY_INX": "0",
    "SBATCH_MEM_PER_NODE": "100M",
    "SBATCH_TIMELIMIT": "1",
    "SLURM_MEM_PER_CPU": "100",
    "SQUEUE_STATES": "COMPLETED",
    "SACCT_FORMAT": "jobname",
    "PYTHONSAFEPATH": "1",
}
ON_SLURM = (
    "-m",
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.cpus_per_task=2",  # eight runs at a time on the two nodes, some of which only wait
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=20",
    "hydra.launcher.max_num_timeout=2",
)


@pytest.fixture(scope="session")
def heads() -> Iterator[list[Head]]:
    """Every command that was started; what still runs at the end of the session is ended."""
    begun: list[Head] = []
    yield begun
    for head in begun:
        if head.process.poll() is None:
            head.process.kill()
            head.process.wait()


@pytest.fixture(scope="session")
def start(busy_lab: Lab, heads: list[Head], tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start the users' command on the cluster."""

    def start_head(*arguments: str, runs: Path | None = None, **options: object) -> Head:
        folder = runs or tmp_path_factory.mktemp("runs")
        environment = busy_lab.environment | SHELL
        heads.append(Head(*ON_SLURM, *arguments, runs=folder, environment=environment, **options))
        return heads[-1]

    return start_head


@pytest.fixture
def calm(heads: list[Head]) -> None:
    """For tests that take nodes away: no other test's sweep is still at work."""
    for head in heads:
        head.ends()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, which two workers take turns in."""
    longest = (
        "test_sweep",
        "test_deaths",
        "test_preemption",
        "test_chaos",
        "test_pack",
        "test_tasks",
        "test_full_disk",
    )
    order = {name: k - len(longest) for k, name in enumerate(longest)}
    here = [k for k, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ordered = sorted((items[k] for k in here), key=lambda item: order.get(item.path.stem, 0))
    for k, item in zip(here, ordered, strict=True):
        items[k] = item


@pytest.fixture(autouse=True)
def _logs_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what the cluster's daemons said when a test on it fails."""
    yield
    report = getattr(request.node, "report_of_call", None)
    if report is not None and report.failed and "busy_lab" in request.fixturenames:
        print(request.getfixturevalue("busy_lab").log_tails())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.report_of_call = report
    return report
