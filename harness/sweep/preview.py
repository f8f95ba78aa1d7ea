"""What a sweep would do: `harness.plan=true`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.jobs import queue
from harness.jobs.backend import Shape, pack_jobs
from harness.jobs.queue import QueueUnreachable
from harness.runtime.console import Console
from harness.sweep.estimate import describe_time
from harness.sweep.plan import Plan, describe

Config = dict[str, Any]


# What a run leaves: record, weights, predictions, history and log; and one that is a job or a process of its own besides:
# what it was given, its submission, its attempts and its output.
FILES_OF_A_RUN, FILES_OF_A_JOB = 5, 9


def print_plan(
    plan: Plan, folder: Path, console: Console, as_jobs: bool, arrays: Callable[[dict[Path, Config]], str]
) -> None:
    """What would run, without running it. as_jobs: whether runs are jobs or processes of their own; arrays: into which job
    arrays they go, in words.
    """
    console.say(describe(plan))
    named = {"teacher": plan.teachers, "student": plan.students}
    if listed := [f"{what}  {directory}" for what, runs in named.items() for directory in runs]:
        console.say("\n".join(listed))
    console.say(describe_time(plan, folder))
    groups = [f"{len(runs)} {what}s{arrays(runs)}" for what, runs in named.items() if runs]
    console.say(f"arrays: {', then '.join(groups) or 'none'}")
    console.say(describe_files(plan, folder, as_jobs))


def describe_files(plan: Plan, folder: Path, as_jobs: bool) -> str:
    """What a sweep does to a file system, where the number of files may be limited, too."""
    new = len(plan.to_train())
    count = new * (FILES_OF_A_JOB if as_jobs else FILES_OF_A_RUN)
    while not folder.exists():
        folder = folder.parent
    room = os.statvfs(folder).f_favail  # 0 where the file system does not count them
    free = f"; the file system has room for {room} (a quota may be less)" if room else ""
    return f"files: {count} more in {new} folders, {len(plan.runs)} folders side by side{free}"


def describe_arrays(runs: dict[Path, Config], shape: Callable[[Path], Shape], pack: int) -> str:
    """Into which job arrays runs go, where SLURM can say it: one for each shape, or several if that is large."""
    if not queue.available():
        return ""
    try:
        most = queue.largest_array()
    except QueueUnreachable as error:
        return f" (SLURM does not answer: {error})"
    groups = pack_jobs(runs, shape, pack)
    count = sum(math.ceil(len(jobs) / most) for _, jobs in groups)
    said = [f"{count} array{'s' if count > 1 else ''}"]
    if pack > 1:
        said.append(f"{sum(len(jobs) for _, jobs in groups)} jobs of up to {pack} runs")
    for own, jobs in groups:
        if differs := ", ".join(f"{k}={v}" for k, v in own.items() if any(s.get(k) != v for s, _ in groups)):
            said.append(f"{sum(map(len, jobs))} with {differs}")
    return f" ({'; '.join(said)})"
