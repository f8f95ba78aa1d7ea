"""How many threads compute on the CPU. Their number decides how sums are split, and so the last digits of a result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from harness.runtime import host

# Their layers are so small that threads only wait for each other, on a busy machine a hundred times longer than they
# work.
SMALL_MODELS = ("preresnet_tiny",)
OWN = torch.get_num_threads()  # as torch began: OMP_NUM_THREADS, or the cores that this process may use


def choose(config: dict[str, Any]) -> int:
    """The threads of a run: as many as it says, one for small networks, wherever it runs, else as many as the process
    may use: in a job no more than it was granted, where every job of a node would else start one for each core.
    """
    if config["threads"] or config["model"] in SMALL_MODELS:
        return config["threads"] or 1
    return min((OWN, *host.cores_of_slurm()))


@contextlib.contextmanager
def use(count: int) -> Iterator[None]:
    """So many threads, for a while: runs of one process, such as a student and the teacher that it lacks, may differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
