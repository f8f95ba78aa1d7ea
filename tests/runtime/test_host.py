"""Memory that is left to processes, where several grants bound it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runtime import host


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 100 MiB available, no job and no limit."""
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
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
    ],
)
def test_a_job_may_take_what_it_was_granted(
    machine: Path, monkeypatch: pytest.MonkeyPatch, granted: dict[str, str], mib: int
) -> None:
    for name, value in granted.items():
        monkeypatch.setenv(name, value)
    assert host.free_memory() == mib << 20


def test_the_tightest_control_group_around_counts_and_its_cache_is_free(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/job/step\n")
    write_group(machine / "groups" / "job", str(90 << 20), used=60, cache=10)
    write_group(machine / "groups" / "job" / "step", "max", used=1, cache=0)
    assert host.free_memory() == 40 << 20


def test_control_groups_of_the_first_version_count_too(machine: Path) -> None:
    (machine / "cgroup").write_text("5:cpuset:/job\n4:memory:/job\n")
    write_group(machine / "groups" / "memory" / "job", str(70 << 20), used=60, cache=20, version=1)
    assert host.free_memory() == 30 << 20
