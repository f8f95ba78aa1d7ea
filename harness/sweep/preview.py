"""What a sweep would do: `harness.plan=true`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.jobs import queue
from harness.jobs.backend import Shape, pack_jobs
from harness.jobs.queue import QueueUnreachable
from harness.runtime.console import Console
from harness.sweep.plan import Plan, describe, estimate_hours

Config = dict[str, Any]


def print_plan(plan: Plan, folder: Path, console: Console, arrays: Callable[[dict[Path, Config]], str]) -> None:
    """What would run, without running it. arrays: into which job arrays runs go, in words."""
    console.say(describe(plan))
    named = {"teacher": plan.teachers, "student": plan.students}
    if listed := [f"{what}  {directory}" for what, runs in named.items() for directory in runs]:
        console.say("\n".join(listed))
    console.say(estimate(plan, folder))
    groups = [
        f"{len(runs)} {what}{arrays(runs)}"
        for what, runs in (("teachers", plan.teachers), ("students", plan.students))
        if runs
    ]
    console.say(f"arrays: {', then '.join(groups) or 'none'}")


def estimate(plan: Plan, folder: Path) -> str:
    """How long the device is busy, by the records of runs of the same kind."""
    hours, known, unit = estimate_hours(plan, folder)
    todo = len(plan.to_train())
    if not todo:
        return "about 0.00 hours"
    if not known:
        return "no estimate of the time: no record of such runs yet"
    return f"about {hours * todo / known:.2f} {unit} (by records of the kind of {known} of the {todo})"


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
