"""Handing runs to a backend, so that none is submitted twice and none is lost where it is not taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.jobs.backend import Backend
from harness.jobs.queue import QueueUnreachable
from harness.runtime.console import Console
from harness.runtime.interruption import Stop
from harness.store.aside import bring_back, forget_aside, set_aside
from harness.store.claim import Claim, Claimed, TakenOver
from harness.store.identity import is_teacher
from harness.store.record import settled
from harness.sweep.plan import is_finished
from harness.sweep.watch import pause

Config = dict[str, Any]


class Submitter:
    """Submits runs of the sweep in a folder to a backend."""

    def __init__(self, folder: Path, backend: Backend, console: Console):
        self.folder, self.backend, self.console = folder, backend, console

    def submit_patiently(self, what: str, todo: dict[Path, Config], stop: Stop) -> bool:
        """Submit, and say so; False where `stop` came first. SLURM may be away, once it has taken jobs of this sweep."""
        new = 0
        while not stop():
            try:
                left = {place: todo[place] for place in self.backend.unsubmitted} or todo
                new += self.submit(left, stop=stop)
                break
            except TakenOver:
                raise
            except Claimed:
                return False
            except QueueUnreachable as error:
                if not self.backend.jobs:
                    raise
                self.console.say(f"SLURM does not answer ({error}); trying again")
                pause(stop, 10)
        else:
            return False
        before = len(todo) - new - len(self.backend.unsubmitted)
        taken = f", {before} were submitted before" if before else ""
        self.console.say(f"{what}: {new} submitted{taken}")
        if self.backend.unsubmitted:
            self.console.say(
                f"the queue takes no more: {len(self.backend.unsubmitted)} of them wait here until it does"
            )
        return True

    def submit(
        self,
        runs: dict[Path, Config],
        after: list[str] | None = None,
        stop: Stop = lambda: False,
    ) -> int:
        """Submit what is not finished by now and nobody is at; returns how many that were.

        One command at a time does this in a folder, so that two do not submit the same. A run that is not taken stays
        as it was. Raises Claimed where `stop` ends the wait for another one's turn, TakenOver where another one has gone on in
        the place of this one, ConfigError, QueueUnreachable.
        """
        with Claim(self.folder / ".submission", until=stop) as claim:
            # What is done but knows too little may be the neighbour of runs that are still at work in its job.
            adopted = {directory for directory in self.backend.adopt(runs) if not is_done(directory)}
            todo = {
                directory: config
                for directory, config in runs.items()
                if directory not in adopted and (forced(config) or not is_finished(directory, config))
            }
            for directory, config in todo.items():
                if said := set_aside(directory, anew=forced(config)):
                    self.console.say(said)
            try:
                if todo:
                    # The old result is forgotten here and once: a job that is requeued must not do it again.
                    once = {place: {**config, "force": False} for place, config in todo.items()}
                    self.backend.submit(once, after, claim.check)
            finally:
                for directory, config in todo.items():
                    if directory in self.backend.unsubmitted:
                        bring_back(directory, anew=forced(config))
                    else:
                        forget_aside(directory)
            self.backend.unsubmitted -= runs.keys() - todo.keys()  # finished or submitted by others meanwhile
        return len(todo.keys() - self.backend.unsubmitted)


def is_done(directory: Path) -> bool:
    record = settled(directory)
    return record is not None and record["status"] == "done"


def forced(config: Config) -> bool:
    """Whether a finished run is to run again; teachers never are."""
    return config["force"] and not is_teacher(config)
