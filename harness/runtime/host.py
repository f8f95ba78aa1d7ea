"""What of this machine its processes may use, memory and cores: no more than SLURM or a control group grants."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

MEMINFO, OWN_GROUPS, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Of a control group's folder, by version: its limit and use in bytes, and the part of the use that it gives back.
FILES = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
CACHE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)
QUOTA = {2: ("cpu.max",), 1: ("cpu.cfs_quota_us", "cpu.cfs_period_us")}  # microseconds of a core, in a period
# By which SLURM says what a job may take on its node in MiB, of what there are so many, and the launcher's option for it.
MEMORY = {
    "SLURM_MEM_PER_NODE": (None, "mem_gb"),
    "SLURM_MEM_PER_CPU": ("SLURM_CPUS_ON_NODE", "mem_per_cpu"),
    "SLURM_MEM_PER_GPU": ("SLURM_GPUS_ON_NODE", "mem_per_gpu"),
}
CORES = ("SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK")  # what was granted, and what was asked for, which may be less


def free_memory() -> int | None:
    """Bytes that processes started now may take together; None where nobody says."""
    return min((*memory_of_slurm(), *free_here(), *free_in_groups()), default=None)


def memory_of_slurm() -> Iterator[int]:
    """What this job was granted on its node; nothing where it is no job, or may take all (0)."""
    for name, (of, _) in MEMORY.items():
        with contextlib.suppress(KeyError, ValueError):  # a SLURM that writes 16G is one that says nothing
            if granted := int(os.environ[name]) * (int(os.environ[of]) if of else 1):
                yield granted << 20


def memory_option() -> str:
    """The launcher's option by which jobs like this one are granted memory."""
    named = (option for name, (_, option) in MEMORY.items() if os.environ.get(name, "0") != "0")
    return f"hydra.launcher.{next(named, 'mem_gb')}"


def cores() -> int:
    """Cores that this process and what it starts may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min((usable, *cores_of_slurm(), *cores_of_groups())))


def cores_of_slurm() -> Iterator[int]:
    """What this job was granted on its node; nothing where it is no job."""
    yield from [int(granted) for name in CORES if (granted := os.environ.get(name, "")).isdecimal()][:1]


def free_here() -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE):
            yield int(found[1]) << 10


def free_in_groups() -> Iterator[int]:
    """What the control groups that this process is in have left, from its own to the outermost."""
    for group, version in own_groups("memory"):
        yield from free_in(group, version)


def cores_of_groups() -> Iterator[int]:
    """What they let it have of the cores' time, a part of a core as a whole one."""
    for group, version in own_groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            quota, period = (int(word) for name in QUOTA[version] for word in (group / name).read_text().split())
            if quota > 0:
                yield math.ceil(quota / period)


def own_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The control groups of one kind that this process is in, with the version of their interface."""
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                folder = GROUPS / controllers / path.lstrip("/")
                for group in (folder, *folder.parents):
                    if group.is_relative_to(GROUPS):
                        yield group, 1 if controllers else 2


def free_in(group: Path, version: int) -> Iterator[int]:
    """What one group has left; nothing where it has no limit."""
    with contextlib.suppress(OSError, ValueError):  # no such file; "max"
        most, used = (int((group / name).read_text()) for name in FILES[version])
        cache = CACHE.search((group / "memory.stat").read_text())
        yield max(0, most - used + (int(cache[1]) if cache else 0))
