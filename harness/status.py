"""`python -m harness.status [FOLDER] [--watch]`: what every run of a folder is doing.

Read from the run directories, and from squeue and sacct where there are any; at any time, also while a sweep
runs elsewhere. A run whose SLURM job died while no head watched (`sweep.detach=true`) gets its `failed` record here,
as the head would have written it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.jobs import death, queue
from harness.runtime.console import Console, complain, duration, one_line, run_command
from harness.store.aside import TRAINED
from harness.store.attempts import ATTEMPTS, read_events
from harness.store.claim import CLAIM, is_claimed, living
from harness.store.files import Damaged
from harness.store.history import HISTORY, read_progress
from harness.store.identity import means
from harness.store.record import read_record, read_status, settled
from harness.store.submission import CONFIG, SUBMISSION, Submission, read_config, read_submission

STATES = ("running", "waiting", "interrupted", "failed", "diverged", "damaged", "dead", "done")
RUN = re.compile(r"-[0-9a-f]{12}$")  # a run's directory ends with its hash; the bank keeps other things, too


@dataclass
class RunState:
    """One run: its state, and what else is known of it."""

    name: str
    state: str
    progress: str = ""
    preempted: int = 0
    job: str = ""
    node: str = ""
    log: str = ""
    note: str = ""


@dataclass(frozen=True)
class Found:
    """A run that is not done: its record's status, the names of its files, and what was noted when it was submitted."""

    status: str | None
    names: frozenset[str]
    about: Submission | None


def scan(folder: Path) -> list[RunState]:
    """The state of every run and teacher below a folder. Raises NotADirectoryError where there is none."""
    if not folder.is_dir():
        raise NotADirectoryError(f"no folder {folder}")
    found = [entry.path for where in (folder, folder / "teachers") if where.is_dir() for entry in os.scandir(where)]
    return look_at([Path(path) for path in sorted(found) if RUN.search(path)])


def look_at(places: list[Path]) -> list[RunState]:
    """The states of the runs in these directories."""
    states: list[RunState] = []
    unfinished: dict[Path, Found] = {}
    for place in places:
        try:
            status = read_status(place)
            if status == "done":
                states.append(RunState(place.name, "done"))
            else:
                unfinished[place] = find(place, status)
        except (Damaged, OSError) as error:
            states.append(RunState(place.name, "damaged", note=str(error)))
    jobs = {place: found.about for place, found in unfinished.items() if found.about}
    live, unreachable = {}, ""
    wanted = {place: about["job_id"] for place, about in jobs.items() if about["job_id"]}
    if wanted:
        try:
            live = queue.live_jobs(wanted.values())
            open_ended = {place for place, found in unfinished.items() if found.status in (None, "interrupted")}
            silent = {place for place in open_ended & wanted.keys() if wanted[place] not in live}
            bury_dead({place: jobs[place] for place in silent if is_its_jobs(place, wanted[place])})
            unfinished |= {place: find(place, status_now(place)) for place in silent}
        except queue.QueueUnreachable as error:
            unreachable = f"nobody knows of its job: {error}"
    alive = living([place for place, found in unfinished.items() if CLAIM in found.names])
    for place, found in unfinished.items():
        try:
            states.append(inspect(place, found, live, unreachable, alive))
        except Damaged as error:
            states.append(RunState(place.name, "damaged", note=str(error)))
    return states


def find(place: Path, status: str | None) -> Found:
    """What there is of a run that is not done: one listing, where most of what it may have is not there."""
    names = frozenset(os.listdir(place))  # noqa: PTH208  of a hundred thousand folders
    return Found(status, names, read_submission(place) if SUBMISSION in names else None)


def bury_dead(jobs: dict[Path, Submission]) -> None:
    """Write the records of runs whose jobs, by SLURM's accounting, have ended without one."""
    ended = queue.accounted({about["job_id"] for about in jobs.values()})
    for place, about in jobs.items():
        job, owner = about["job_id"], is_claimed(place)
        if job not in ended or (owner is not None and owner["job"] != job and living([place])):
            continue
        with contextlib.suppress(Damaged):  # it is shown as what it is
            if (config := read_config(place / CONFIG)) is not None and means(config, place):
                death.bury(place, config, death.of_job(place, job, ended[job], about["log"]))


def status_now(place: Path) -> str | None:
    """A run's status where its record is new."""
    record = settled(place)
    return record["status"] if record else None


def is_its_jobs(place: Path, job: str) -> bool:
    """Whether the last attempt at a run was that job's: a run that was stopped may have gone on elsewhere."""
    try:
        starts = [event["slurm"] for event in read_events(place) if event["event"] == "started"]
    except Damaged:
        return False
    if not starts:
        return True
    last = starts[-1] or {}
    return job in (last.get("job_id"), f"{last.get('array_job_id')}_{last.get('array_task_id')}")


def inspect(
    place: Path, found: Found, live: dict[str, tuple[str, str]], unreachable: str, alive: set[Path]
) -> RunState:
    """The state of a run that is not done."""
    status, about = found.status, found.about
    events = read_events(place) if ATTEMPTS in found.names else []
    run = RunState(place.name, status or "waiting", log=f"{place}/run.log")
    run.preempted = sum(event["event"] in ("preempted", "time_limit") for event in events)
    starts = [event for event in events if event["event"] == "started"]
    if starts:
        run.node = (starts[-1]["slurm"] or {}).get("node") or starts[-1].get("host") or ""
    job = about["job_id"] if about else None
    claim = is_claimed(place) if CLAIM in found.names else None
    if about:
        run.job, run.log = job or "", about["log"]
    if job in live:
        state, where = live[job]
        run.state = "running" if state in ("RUNNING", "COMPLETING") else "waiting"
        run.note = "" if run.state == "running" else f"{state.lower()} {where}"
    elif claim and place in alive:
        run.state, run.node = "running", claim["host"] or ""
    elif unreachable and job and status in (None, "interrupted"):
        run.state, run.note = "waiting", unreachable
    elif status is None and TRAINED not in found.names and (starts or job or HISTORY in found.names):
        run.state, run.note = "dead", "gone without a record; the sweep's command runs it again"
    if run.state == "running" and (progress := read_progress(place)):
        left = max(0.0, progress["left_s"] - (time.time() - progress["time"]))
        run.progress = f"epoch {progress['epoch']}/{progress['epochs']}, {duration(left)} left"
    if run.state in ("failed", "diverged", "interrupted") and not run.note and (record := read_record(place)):
        run.note = record["error"]["message"]
        run.log = record["error"].get("log") or run.log
    return run


def report(states: list[RunState], show_done: bool) -> str:
    """Counts, then one aligned line for each run that is not done (or for every run)."""
    counts = Counter(run.state for run in states)
    found = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    title = f"{len(states)} runs and teachers: {found or 'none'}"
    rows = [
        (run.name, run.state, run.progress, str(run.preempted or ""), run.job, run.node, run.note, run.log)
        for run in sorted(states, key=lambda run: STATES.index(run.state))
        if run.state != "done" or show_done
    ]
    if not rows:
        return title
    # Plain text: a drawn table of thousands of rows takes seconds.
    rows = [tuple(map(one_line, row)) for row in rows]
    rows.insert(0, ("run", "state", "progress", "requeued", "job", "node", "note", "log"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in rows
    ]
    return "\n".join([title, *shown])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.status", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="runs", type=Path, help="the sweep's folder (default: runs)")
    parser.add_argument("--watch", action="store_true", help="show it anew every few seconds, until Ctrl-C")
    parser.add_argument("--all", action="store_true", help="list done runs too")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        while True:
            states = scan(options.folder)
            if options.json:
                print("".join(f"{json.dumps(vars(run))}\n" for run in states), end="", flush=True)
            else:
                if options.watch and console.live:
                    console.rich.clear()
                console.say(report(states, options.all))
            if not options.watch or not any(run.state in ("running", "waiting") for run in states):
                return 0
            time.sleep(3)
    except OSError as error:
        complain(error)
        return 2


if __name__ == "__main__":
    run_command(main)
