"""How much of this machine's memory is left for its processes: no more than SLURM or a control group grants."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

MEMINFO, OWN_GROUPS, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Of a control group's folder, by version: its limit and use in bytes, and the part of the use that it gives back.
FILES = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
CACHE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)


def free_memory() -> int | None:
    """Bytes that processes started now may take together; None where nobody says."""
    return min((*granted_by_slurm(), *free_here(), *free_in_groups()), default=None)


def granted_by_slurm() -> Iterator[int]:
    """What this job was granted on its node; nothing where it is no job, or may take all (0)."""
    names = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    with contextlib.suppress(ValueError):  # a SLURM that writes 16G is one that says nothing
        node, core, cores = (int(os.environ.get(name, 0)) for name in names)
        if granted := node or core * cores:
            yield granted << 20


def free_here() -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE):
            yield int(found[1]) << 10


def free_in_groups() -> Iterator[int]:
    """What the control groups that this process is in have left, from its own to the outermost."""
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                folder = GROUPS / controllers / path.lstrip("/")
                version = 1 if controllers else 2
                for group in (folder, *folder.parents):
                    if group.is_relative_to(GROUPS):
                        yield from free_in(group, version)


def free_in(group: Path, version: int) -> Iterator[int]:
    """What one group has left; nothing where it has no limit."""
    with contextlib.suppress(OSError, ValueError):  # no such file; "max"
        most, used = (int((group / name).read_text()) for name in FILES[version])
        cache = CACHE.search((group / "memory.stat").read_text())
        yield max(0, most - used + (int(cache[1]) if cache else 0))
