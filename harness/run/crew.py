"""What rank 0 of a run on several devices knows of the others, its crew: processes started here, or tasks of the run's job.

Rank 0 executes the run: claim, teachers, checkpoint, log and record are its alone. The others (follower.py) wait to be told
what to do, do it with it, step by step, and end when it ends. What becomes of one they say to each other in a store that
rank 0 keeps.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from harness.runtime import patience
from harness.runtime.interruption import Interrupted, Stop
from harness.training import ranks
from harness.training.ranks import ALONE, Ranks

BEAT_S = 1.0  # between two signs of life
CONNECT_S = 30.0  # within which a store answers for the first time
LEAVE_S, TASKS_LEAVE_S = 3.0, 10.0  # that rank 0 waits for the others at its end
FAILED = "failed"  # said in the store by a rank 0 that has
LOG = "rank{}.log"  # output of a process that was started here, in the run's directory
ANOTHERS = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|time(d )?out|TCPStore", re.IGNORECASE)


class RankLost(RuntimeError):
    """Another process of the run is gone, or silent."""


def is_anothers(error: Exception) -> bool:
    """Whether torch says that other ranks are gone."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and bool(ANOTHERS.search(str(error))))


class Crew:
    """What rank 0 knows of its crew: none, where count is 1."""

    def __init__(self, count: int, store: dist.TCPStore | None = None):
        self.count, self.store = count, store
        self.processes: list[subprocess.Popen] = []  # that were started here
        self.logs: list[Path] = []  # theirs
        self.ranks: Ranks | None = ALONE if count == 1 else None
        self.said = 0  # a task, that it begins, the next task, ..., and at any time that there is no more

    def start(self, directory: Path) -> None:
        """Start all of it as processes of this machine; their output goes to the run's directory."""
        for rank in range(1, self.count):
            self.logs.append(directory / LOG.format(rank))
            numbers = map(str, (self.store.port, rank, self.count))
            with self.logs[-1].open("wb") as output:
                started = subprocess.Popen(
                    [sys.executable, "-u", "-m", "harness.run.follower", "127.0.0.1", *numbers],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for rank 0
                )
            self.processes.append(started)

    @property
    def beside(self) -> int:
        """Processes of the run on this machine that share its cores."""
        return 1 + len(self.processes)

    def call(self, task: dict[str, Any], device: torch.device, stop: Stop) -> Ranks:
        """Have the crew train with this process. Raises RankLost, Interrupted."""
        if self.count == 1:
            return ALONE
        self.say(task)
        for rank in range(1, self.count):
            self.await_ready(rank, stop)
        self.say(True)
        self.ranks = self.ranks or ranks.join(self.store, 0, self.count, device)
        return self.ranks

    def say(self, message: Any) -> None:
        self.store.set(f"said/{self.said}", json.dumps(message))
        self.said += 1

    def await_ready(self, rank: int, stop: Stop) -> None:
        """Return when a rank has read the data of the task, which may take long: as long as it gives signs of life."""
        last, since = None, time.monotonic()
        while not self.store.check([f"ready/{self.said - 1}/{rank}"]):
            if stop():
                raise Interrupted("stopped before the first step")
            if dead := self.dead():
                raise RankLost(dead[0])
            if (beat := self.beats().get(rank)) != last:
                last, since = beat, time.monotonic()
            if time.monotonic() - since > patience.of_ranks():
                raise RankLost(f"{self.name(rank)} is silent; the same command goes on from the checkpoint")
            time.sleep(0.1)

    def dead(self) -> list[str]:
        """Who is known to have ended, in words."""
        found = []
        for rank in range(1, self.count):
            if self.store.check([f"error/{rank}"]):
                found.append(f"{self.name(rank)}: {self.store.get(f'error/{rank}').decode()}")
            elif self.processes and (status := self.processes[rank - 1].poll()) is not None:
                how = signal.Signals(-status).name if status < 0 else f"exit {status}"
                log = self.logs[rank - 1]
                found.append(f"{self.name(rank)} has ended ({how}{f', see {log}' if log.stat().st_size else ''})")
        return found

    def name(self, rank: int) -> str:
        where = f" ({self.store.get(f'place/{rank}').decode()})" if self.store.check([f"place/{rank}"]) else ""
        return f"rank {rank}{where}"

    def explained(self, error: Exception) -> Exception:
        """An error of a step that another rank has caused, in a line that says which; any other as it is."""
        if self.count == 1 or not is_anothers(error):
            return error
        before = self.beats()
        time.sleep(3 * BEAT_S)
        now = self.beats()
        silent = [f"{self.name(rank)} is silent" for rank in now if now[rank] == before[rank]]
        found = self.dead() or silent or [f"the ranks lost each other: {str(error).splitlines()[0]}"]
        return RankLost(f"{'; '.join(found)}; the same command goes on from the checkpoint")

    def beats(self) -> dict[int, bytes]:
        known = [rank for rank in range(1, self.count) if self.store.check([f"beat/{rank}"])]
        return {rank: self.store.get(f"beat/{rank}") for rank in known}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the crew home, if there is one. Where this process failed the others, which may wait for it in a step, end at
        once.
        """
        if self.store is None:
            return
        failed = kind is not None and not issubclass(kind, Interrupted)
        if failed:
            self.store.set(FAILED, "")
            for process in self.processes:
                process.kill()
        else:
            self.say(None)
        deadline = time.monotonic() + (LEAVE_S if self.processes else TASKS_LEAVE_S)
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:  # it has nothing to save, and may read data for long
                process.kill()
                process.wait()
        # Tasks of a job: the store is theirs until they have left.
        while not self.processes and not failed and time.monotonic() < deadline:
            if all(self.store.check([f"left/{rank}"]) for rank in range(1, self.count)):
                break
            time.sleep(0.1)
        ranks.leave()
        for log in self.logs:
            if log.exists() and not log.stat().st_size:
                log.unlink()


@contextlib.contextmanager
def start_crew(count: int, directory: Path) -> Iterator[Crew]:
    """A crew of processes of this machine, for a run in this process."""
    with Crew(count, open_store("127.0.0.1", count) if count > 1 else None) as crew:
        crew.start(directory)
        yield crew


def open_store(host: str, count: int) -> dist.TCPStore:
    """The store of rank 0, at a port that is free."""
    return dist.TCPStore(host, 0, count, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=CONNECT_S))
