"""The other processes of a run on several devices: started here for this machine's, or tasks of the run's SLURM job.

Rank 0 executes the run: claim, teachers, checkpoint, log and record are its alone. The others, its crew, wait to be told
what to train, train it with it, step by step, and end when it ends. What becomes of one they say to each other in a store
that rank 0 keeps.

    python -m harness.run.crew HOST PORT RANK COUNT      one of them
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from harness.run.bank import Bank
from harness.run.data import load_images
from harness.run.learner import Learner
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted, Stop, StopRequest
from harness.training import arithmetic, compilation, ranks, threads
from harness.training.device import choose_device
from harness.training.ranks import ALONE, Ranks
from harness.training.trainer import Diverged

Config = dict[str, Any]

BEAT_S = 1.0  # between two signs of life
ANOTHERS = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out|TCPStore", re.IGNORECASE)


class RankLost(RuntimeError):
    """Another process of the run is gone, or silent."""


def is_anothers(error: Exception) -> bool:
    """Whether torch says that other ranks are gone."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and bool(ANOTHERS.search(str(error))))


class Crew:
    """What rank 0 knows of its crew: none, where count is 1."""

    def __init__(self, count: int, store: dist.TCPStore | None = None, processes: tuple[subprocess.Popen, ...] = ()):
        self.count, self.store, self.processes = count, store, processes
        self.ranks: Ranks | None = ALONE if count == 1 else None
        self.tasks = 0
        self.beside = 1 + len(processes)  # processes of this machine, which share its cores

    def call(self, task: dict[str, Any], device: torch.device, stop: Stop) -> Ranks:
        """Have the crew train with this process. Raises RankLost, Interrupted."""
        if self.count == 1:
            return ALONE
        for rank in range(1, self.count):
            while not self.store.check([f"place/{rank}"]):
                if self.dead() or stop():
                    break
                time.sleep(0.1)
        if stop():
            raise Interrupted("stopped before the first step")
        if dead := self.dead():
            raise RankLost(dead[0])
        self.store.set(f"task/{self.tasks}", json.dumps(task))
        self.tasks += 1
        self.ranks = self.ranks or ranks.join(self.store, 0, self.count, device)
        return self.ranks

    def dead(self) -> list[str]:
        """Who is known to have ended, in words."""
        found = []
        for rank in range(1, self.count):
            if self.store.check([f"error/{rank}"]):
                found.append(f"{self.name(rank)}: {self.store.get(f'error/{rank}').decode()}")
            elif self.processes and (status := self.processes[rank - 1].poll()) is not None:
                how = signal.Signals(-status).name if status < 0 else f"exit {status}"
                found.append(f"{self.name(rank)} has ended ({how})")
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
        """Send the crew home."""
        if kind is not None:
            ranks.leave()  # who waits for this process in a step waits no longer
        self.store.set(f"task/{self.tasks}", "")
        deadline = time.monotonic() + 10
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        # Tasks of a job: the store is theirs until they have left; but one that is lost never will.
        while not self.processes and kind is not RankLost and time.monotonic() < deadline:
            if all(self.store.check([f"left/{rank}"]) for rank in range(1, self.count)):
                break
            time.sleep(0.1)
        ranks.leave()


@contextlib.contextmanager
def start_crew(count: int, directory: Path) -> Iterator[Crew]:
    """A crew of processes of this machine, for a run in this process; their output goes to the run's directory."""
    if count == 1:
        yield Crew(1)
        return
    store = open_store("127.0.0.1", count)
    processes = []
    for rank in range(1, count):
        with (directory / f"rank{rank}.log").open("wb") as output:
            command = [
                sys.executable,
                "-u",
                "-m",
                "harness.run.crew",
                "127.0.0.1",
                *map(str, (store.port, rank, count)),
            ]
            processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for rank 0
                )
            )
    crew = Crew(count, store, tuple(processes))
    with crew:
        yield crew


def open_store(host: str, count: int) -> dist.TCPStore:
    """The store of rank 0, at a port that is free."""
    return dist.TCPStore(host, 0, count, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))


def serve(host: str, port: int, rank: int, count: int, local: int, stop: Stop) -> int:
    """Train with rank 0 whatever it says, as one of its crew, on the machine's GPU number `local`; returns the exit
    status.
    """
    store = connect(host, port, count)
    store.set(f"place/{rank}", f"process {os.getpid()} on {socket.gethostname()}")
    threading.Thread(target=beat, args=(host, port, rank, count), daemon=True).start()
    group, console, tasks = None, Console(), 0
    try:
        while task := receive(store, tasks):
            device = choose_device(task["config"]["device"], local)
            group = group or ranks.join(store, rank, count, device)
            with contextlib.suppress(Interrupted, Diverged):  # rank 0 knows, too
                work(task, device, group, console, stop)
            tasks += 1
        store.set(f"left/{rank}", "")
    except Exception as error:
        if is_anothers(error):
            print(f"rank {rank} lost the others: {str(error).splitlines()[0]}", file=sys.stderr)
        else:
            store.set(f"error/{rank}", f"{type(error).__name__}: {error}")
            raise
        return 1
    return 0


def work(task: dict[str, Any], device: torch.device, group: Ranks, console: Console, stop: Stop) -> None:
    """Train and answer as rank 0 does, and write nothing."""
    config = task["config"]
    arithmetic.prepare(config["deterministic"])
    with threads.use(max(1, threads.choose(config) // task["beside"])):
        data, fingerprint = load_images(config["data"], device, console)
        if fingerprint != task["fingerprint"]:
            raise RuntimeError(f"the data are others on {socket.gethostname()} than where rank 0 is")
        bank = Bank(config, data, fingerprint, device)
        if bank.weights() != task["taught"]:
            raise RuntimeError(f"the teachers are others on {socket.gethostname()} than where rank 0 is")
        learner = Learner(config, data, device, group.count)
        learner.learn_from(bank, console, stop, group.rank)
        training = learner.begin(group, stop=stop)
        if state := group.copy(None):
            training.restore(state)
        learner.train(training)
        with compilation.uncompiled(config["train"]["compile"]):
            learner.answer(training)


def connect(host: str, port: int, count: int) -> dist.TCPStore:
    return dist.TCPStore(host, port, count, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=30))


def beat(host: str, port: int, rank: int, count: int) -> None:
    """Say in the store that this process is alive, as long as it is and the store is there."""
    store = connect(host, port, count)
    with contextlib.suppress(dist.DistError):
        while True:
            store.set(f"beat/{rank}", str(time.monotonic()))
            time.sleep(BEAT_S)


def receive(store: dist.TCPStore, number: int) -> dict[str, Any] | None:
    """Rank 0's next task, however long that takes; None: there is none any more. Raises RuntimeError without rank 0."""
    while not store.check([f"task/{number}"]):
        time.sleep(0.1)
    said = store.get(f"task/{number}").decode()
    return json.loads(said) if said else None


def main() -> int:
    host, *numbers = sys.argv[1:]
    port, rank, count = map(int, numbers)
    with StopRequest() as stop:
        return serve(host, port, rank, count, rank, stop)


if __name__ == "__main__":
    sys.exit(main())
