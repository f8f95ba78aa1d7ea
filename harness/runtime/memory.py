"""How much memory a process takes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def status(name: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS, what this process holds, or VmHWM, the most that it held."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


def peak_of_this_process() -> int:
    """The most bytes that this process held at a time."""
    if sys.platform == "linux":
        return status("VmHWM")  # getrusage would begin at what the parent held when it started this process
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
