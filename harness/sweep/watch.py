"""Following submitted runs until each has a record: who has ended, who waits and why, who died and left nothing."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.jobs import death, queue
from harness.jobs.backend import Backend
from harness.jobs.death import Death
from harness.jobs.queue import QueueUnreachable
from harness.runtime.console import Bar, Console, duration
from harness.runtime.interruption import StopRequest
from harness.store.aside import put_back_trained
from harness.store.claim import STALE_S, Claimed, is_claimed
from harness.store.record import RECORD, answers, settled

Config = dict[str, Any]
SETTLE_S = 5.0  # how long a network file system may take to show a record that another node wrote
LATE_S = 90.0  # the same where SLURM says that the job ended well: clients may not look again for a minute
# Between attempts to submit what the queue had no room for, where some run has ended meanwhile; else ten times that.
AGAIN_S = 10.0
# Reasons for waiting that do not pass by themselves.
STUCK = re.compile(r"held|BadConstraints|Invalid|Partition(Time|Node)Limit|PerJob", re.IGNORECASE)


class Watch:
    """The runs of one phase of a sweep, `what`, on a backend."""

    def __init__(self, backend: Backend, console: Console, what: str, runs: dict[Path, Config]):
        self.backend, self.console, self.what = backend, console, what
        self.pending = dict(runs)
        self.alive: dict[Path, str] = {}  # what the backend last said of them
        self.bar = Bar(console, what, len(runs))
        self.missed: dict[Path, Missed] = {}
        self.told: set[Path] = set()  # whose reason for waiting was said
        self.outdated = {place: written(place) for place in runs if is_failed(settled(place))}
        self.done = self.failed = 0

    def follow(self, stop: StopRequest, fail_fast: bool, submit: Callable[[dict[Path, Config]], None]) -> bool:
        """Watch until every run has a record; False where `stop`, or a failure with `fail_fast`, ends it before that.

        `submit` is given, now and then, the runs that the queue had no room for.
        """
        tried, left = time.monotonic(), len(self.pending)
        while self.pending:
            if stop():
                break
            try:
                patience = AGAIN_S if len(self.pending) < left else 10 * AGAIN_S
                if self.backend.unsubmitted and time.monotonic() - tried > patience:
                    tried, left = time.monotonic(), len(self.pending)
                    submit({place: self.pending[place] for place in self.backend.unsubmitted})
                self.alive = self.backend.alive()
            except Claimed:  # while it waited for its turn to submit, `stop` said so
                break
            except QueueUnreachable as error:
                self.console.say(f"SLURM does not answer ({error}); trying again")
                pause(stop, 10)
                continue
            for directory, config in list(self.pending.items()):
                if record := self.judge(directory, config):
                    del self.pending[directory]
                    self.console.say(outcome(record, directory))
                    self.done += record["status"] == "done"
                    self.failed += record["status"] != "done"
            self.show()
            if self.failed and fail_fast and self.pending:
                self.cancel()
                break
            if self.pending:
                pause(stop, max(0.5, len(self.pending) / 500))
        self.bar.close()
        return not self.pending

    def judge(self, directory: Path, config: Config) -> dict[str, Any] | None:
        """The record that says how a run ended, once it has; written here where its job died without one."""
        record = settled(directory)
        # A job that somebody had requeued finds the failure of its last attempt; it is at it again.
        if is_failed(record) and directory in self.alive and written(directory) == self.outdated.get(directory):
            record = None
        if directory in self.backend.unsubmitted:
            return None
        if record is not None:
            return record
        if directory in self.alive:
            self.missed.pop(directory, None)
            self.explain(directory, self.alive[directory])
            return None
        if directory not in self.missed:
            self.missed[directory] = Missed(directory, self.backend.jobs.get(directory))
        missed = self.missed[directory]
        if not missed.for_good():
            return None
        end = self.backend.death(directory)
        if not missed.is_dead(end):
            return None
        record = death.bury(directory, config, end)
        if record["status"] == "done" and not answers(record, config["evaluate"]):
            self.console.say(
                f"{directory.name}: trained before, but what is asked since was not found out: {end.message}"
            )
        return record

    def explain(self, directory: Path, state: str) -> None:
        """Say once why a job does not start, where that will not pass."""
        if directory in self.told or not STUCK.search(state):
            return
        self.told.add(directory)
        job = self.backend.jobs[directory]
        self.console.say(
            f"{directory.name}: job {job} is {state}, which does not pass by itself: "
            f"scontrol release {job}, or scancel it and ask for less (hydra.launcher...)"
        )

    def running(self) -> int:
        return sum(state == "running" for place, state in self.alive.items() if place in self.pending)

    def show(self) -> None:
        running = self.running()
        states = (state for place, state in self.alive.items() if place in self.pending)
        reasons = Counter(reason for state in states if (reason := state.partition(": ")[2]))
        why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
        left = len(self.pending) - running
        note = f"{self.done} done, {self.failed} failed, {running} running, {left} waiting{why}"
        self.bar.update(self.done + self.failed, note)

    def cancel(self) -> None:
        self.console.say(f"fail_fast: cancelling {len(self.pending)} runs")
        try:
            self.backend.cancel(list(self.pending))
        except QueueUnreachable as error:
            self.console.say(f"SLURM does not answer ({error}): they go on; scancel ends them")
            return
        self.give_up_waiting()

    def give_up_waiting(self) -> None:
        """Leave runs that have not started as they were; their jobs will not come."""
        for directory in self.pending:
            if self.alive.get(directory) != "running":
                put_back_trained(directory)


class Missed:
    """A run without a job of ours and without a record: late news, in somebody else's hands, or dead."""

    def __init__(self, directory: Path, job: str | None):
        self.directory, self.job = directory, job
        self.began = self.since = time.monotonic()
        self.owner = self.claimant()

    def claimant(self) -> Config | None:
        """The claim on the run, unless our own job, which is gone, left it."""
        owner = is_claimed(self.directory)
        return None if owner is None or (self.job is not None and owner["job"] == self.job) else owner

    def for_good(self) -> bool:
        """Whether nobody seems to bring the record any more."""
        owner = self.claimant()
        if owner != self.owner:  # a heartbeat
            self.owner, self.since = owner, time.monotonic()
        return time.monotonic() - self.since > (SETTLE_S if owner is None else STALE_S)

    def is_dead(self, end: Death) -> bool:
        """Whether to believe that it ended so; if not, it is missed anew."""
        late = end.slurm_state == "COMPLETED" and time.monotonic() - self.began < LATE_S
        if late or end.slurm_state in queue.LIVE:
            self.since = time.monotonic()
            return False
        return True


def is_failed(record: dict[str, Any] | None) -> bool:
    return record is not None and record["status"] == "failed"


def written(directory: Path) -> int | None:
    """When a run's record was written, in nanoseconds."""
    with contextlib.suppress(FileNotFoundError):
        return (directory / RECORD).stat().st_mtime_ns
    return None


def pause(stop: StopRequest, seconds: float) -> None:
    """Sleep, but not through a request to stop."""
    until = time.monotonic() + seconds
    while not stop() and time.monotonic() < until:
        time.sleep(0.1)


def outcome(record: dict[str, Any], directory: Path) -> str:
    """One line on a finished run."""
    name = directory.name.rpartition("-")[0]
    if record["status"] != "done":
        return f"{name}: {record['status']}: {record['error']['message']}"
    test = record["metrics"]["student"]["test"]
    wall = duration(record["cost"]["wall_s"])
    return f"{name}: acc {100 * test['acc']:.2f} %, nll {test['nll']:.4f}, ece {test['ece']:.4f}, {wall}"
