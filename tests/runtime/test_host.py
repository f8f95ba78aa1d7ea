"""Memory that is left to processes, where several grants bound it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runtime import host


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 100 MiB available and as many cores as it has, no job and no limit."""
    for name in (*host.MEMORY, *host.CORES, "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "meminfo").write_text("MemTotal:   999999 kB\nMemAvailable:   102400 kB\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    for name, place in (("MEMINFO", "meminfo"), ("OWN_GROUPS", "cgroup"), ("GROUPS", "groups")):
        monkeypatch.setattr(host, name, tmp_path / place)
    return tmp_path


def write_group(folder: Path, most: str, used: int, cache: int, version: int = 2) -> None:
    folder.mkdir(parents=True)
    names = dict(zip(host.FILES[version], (most, str(used << 20)), strict=True))
    stat = f"anon 1\n{'total_' if version == 1 else ''}inactive_file {cache << 20}\nfile 3\n"
    for name, text in {**names, "memory.stat": stat}.items():
        (folder / name).write_text(f"{text}\n")


def test_what_is_available_is_free(machine: Path) -> None:
    assert host.free_memory() == 100 << 20
    (machine / "meminfo").unlink()
    assert host.free_memory() is None


@pytest.mark.parametrize(
    "granted, mib",
    [
        ({"SLURM_MEM_PER_NODE": "60"}, 60),
        ({"SLURM_MEM_PER_NODE": "0"}, 100),
        ({"SLURM_MEM_PER_NODE": "60M"}, 100),
        ({"SLURM_MEM_PER_NODE": "5000"}, 100),
        ({"SLURM_MEM_PER_CPU": "20", "SLURM_CPUS_ON_NODE": "4"}, 80),
        ({"SLURM_MEM_PER_GPU": "30", "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_ON_NODE": "1"}, 60),
    ],
)
def test_a_job_may_take_what_it_was_granted(
    machine: Path, monkeypatch: pytest.MonkeyPatch, granted: dict[str, str], mib: int
) -> None:
    for name, value in granted.items():
        monkeypatch.setenv(name, value)
    assert host.free_memory() == mib << 20


@pytest.mark.parametrize(
    "granted, option",
    [
        ({}, "mem_gb"),
        ({"SLURM_MEM_PER_NODE": "60"}, "mem_gb"),
        ({"SLURM_MEM_PER_CPU": "20"}, "mem_per_cpu"),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_GPU": "20"}, "mem_per_gpu"),
    ],
)
def test_more_memory_is_granted_by_the_option_that_granted_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch, granted: dict[str, str], option: str
) -> None:
    for name, value in granted.items():
        monkeypatch.setenv(name, value)
    assert host.memory_option() == f"hydra.launcher.{option}"


@pytest.mark.parametrize(
    "granted, there",
    [
        ({}, 16),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_CPUS_PER_TASK": "4"}, 6),
        ({"SLURM_CPUS_ON_NODE": "96"}, 16),
    ],
)
def test_cores_are_those_that_were_granted_and_may_be_used(
    machine: Path, monkeypatch: pytest.MonkeyPatch, granted: dict[str, str], there: int
) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda process: range(16))
    for name, value in granted.items():
        monkeypatch.setenv(name, value)
    assert host.cores() == there


@pytest.mark.parametrize(
    "group, controllers, files, there",
    [
        ("job", "0:", {"cpu.max": "250000 100000"}, 3),
        ("job", "0:", {"cpu.max": "max 100000"}, 16),
        ("cpu,cpuacct/job", "4:cpu,cpuacct", {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 1),
        ("cpu,cpuacct/job", "4:cpu,cpuacct", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 16),
    ],
)
def test_a_control_group_may_let_it_have_fewer(
    machine: Path, monkeypatch: pytest.MonkeyPatch, group: str, controllers: str, files: dict[str, str], there: int
) -> None:
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda process: range(16))
    (machine / "cgroup").write_text(f"{controllers}:/job/step\n")
    (machine / "groups" / group).mkdir(parents=True)
    for name, text in files.items():
        (machine / "groups" / group / name).write_text(f"{text}\n")
    assert host.cores() == there


def test_this_process_may_use_the_cores_that_it_was_bound_to() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; from harness.runtime import host; os.sched_setaffinity(0, [{core}]); print(host.cores())"
    environment = {name: value for name, value in os.environ.items() if name not in host.CORES}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "1\n"


def test_the_tightest_control_group_around_counts_and_its_cache_is_free(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/job/step\n")
    write_group(machine / "groups" / "job", str(90 << 20), used=60, cache=10)
    write_group(machine / "groups" / "job" / "step", "max", used=1, cache=0)
    assert host.free_memory() == 40 << 20


def test_control_groups_of_the_first_version_count_too(machine: Path) -> None:
    (machine / "cgroup").write_text("5:cpuset:/job\n4:memory:/job\n")
    write_group(machine / "groups" / "memory" / "job", str(70 << 20), used=60, cache=20, version=1)
    assert host.free_memory() == 30 << 20
