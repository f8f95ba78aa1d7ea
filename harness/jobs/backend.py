"""Where runs run: what the sweep asks of a backend, and how its runs are gathered into jobs.

A backend submits runs (directory and configuration), says which of them are alive, how a dead one ended, and
cancels. What a run achieved is not asked of the backend but read from the run's directory.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from harness.jobs.death import Death

Config = dict[str, Any]
Shape = dict[str, Any]  # what a job asks of the cluster: the fields of `hydra/launcher=submitit_slurm`


class Backend(Protocol):
    survives: bool  # whether jobs that have not started do so without this process
    jobs: dict[Path, str]  # SLURM's ids of submitted and adopted runs
    unsubmitted: set[Path]  # runs that were given to `submit`, but the queue had no room for

    def submit(
        self, todo: dict[Path, Config], after: list[str] | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Submit runs; with `after`, for when those jobs have ended. `check` raises where another command has gone on in
        the place of this one. Raises ConfigError where they are refused, and QueueUnreachable; `jobs` then has those
        that were taken.
        """

    def adopt(self, directories: Iterable[Path]) -> set[Path]:
        """Take over those runs that an earlier command submitted, or another process is at."""

    def alive(self) -> dict[Path, str]:
        """Submitted or adopted runs that wait or run: directory -> "running", "waiting" or "waiting: REASON"."""

    def death(self, directory: Path) -> Death:
        """How a run's job ended that left no result."""

    def cancel(self, directories: list[Path]) -> None:
        """End runs; those that have begun checkpoint first."""


def pack_jobs(
    directories: Iterable[Path], shape: Callable[[Path], Shape], pack: int
) -> list[tuple[Shape, list[list[Path]]]]:
    """Runs by the shape of their jobs, in order, and of each shape `pack` runs a job."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for directory in directories:
        groups[json.dumps(shape(directory), sort_keys=True, default=str)].append(directory)
    return [
        (shape(group[0]), [group[start : start + pack] for start in range(0, len(group), pack)])
        for group in groups.values()
    ]
