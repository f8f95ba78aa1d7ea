"""Runs as processes of this machine."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.jobs import death, snapshot
from harness.jobs.backend import Config
from harness.jobs.death import Death
from harness.jobs.process import start_run
from harness.jobs.slots import Slot
from harness.runtime import host
from harness.store.claim import is_claimed
from harness.store.submission import read_submission, write_config, write_submission


class Local:
    """Processes of this machine, one at a time in each of the slots; a slot is the GPU of its runs, None for those that
    choose for themselves. modules: what runs import besides, see snapshot.py.
    """

    survives = False

    def __init__(self, runs: Path, slots: list[Slot], modules: Iterable[str] = ()):
        self.jobs: dict[Path, str] = {}
        self.unsubmitted: set[Path] = set()
        self.code = snapshot.take(runs, modules)
        self.slots = slots
        self.waiting: dict[Path, Config] = {}
        self.running: dict[Path, tuple[subprocess.Popen, int]] = {}
        self.ended: dict[Path, int] = {}
        self.others: set[Path] = set()

    def submit(
        self, todo: dict[Path, Config], after: list[str] | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        self.waiting.update(todo)

    def adopt(self, directories: Iterable[Path]) -> set[Path]:
        # A claim of another host is the run's own business: it waits, or takes over a dead one.
        adopted = set(filter(claimed_here, directories))
        self.others |= adopted
        return adopted

    def alive(self) -> dict[Path, str]:
        for directory, (process, _) in list(self.running.items()):
            if process.poll() is not None:
                self.ended[directory] = process.returncode
                del self.running[directory]
        taken = {slot for _, slot in self.running.values()}
        for slot in range(len(self.slots)):
            if self.waiting and slot not in taken:
                directory = next(iter(self.waiting))
                self.running[directory] = self.start(directory, self.waiting.pop(directory), slot), slot
        self.others = set(filter(claimed_here, self.others))
        return {
            **dict.fromkeys(self.waiting, "waiting"),
            **dict.fromkeys(self.running, "running"),
            **dict.fromkeys(self.others, "running"),
        }

    def start(self, directory: Path, config: Config, slot: int) -> subprocess.Popen:
        file = write_config(directory, config)
        write_submission(directory, None, str(file.with_name("job.log")))
        return start_run(file, self.code, max(1, host.cores() // len(self.slots)), self.slots[slot])

    def death(self, directory: Path) -> Death:
        about = read_submission(directory)
        return death.of_process(self.ended.get(directory), about["log"] if about else None)

    def cancel(self, directories: list[Path]) -> None:
        for directory in directories:
            self.waiting.pop(directory, None)
            if directory in self.running:
                self.running[directory][0].terminate()


def claimed_here(directory: Path) -> bool:
    """Whether a living process of this machine is at the run."""
    owner = is_claimed(directory)
    return owner is not None and owner["host"] == socket.gethostname()
