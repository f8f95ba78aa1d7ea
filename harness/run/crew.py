"""The other processes of a run on several devices: started here for this machine's, or tasks of the run's SLURM job.

Rank 0 executes the run: claim, teachers, checkpoint, log and record are its alone. The others, its crew, wait to be told
what to train, train it with it, step by step, and end when it ends. What becomes of one they say to each other in a store
that rank 0 keeps.

    python -m harness.run.crew HOST PORT RANK COUNT      one of them
"""

from __future__ import annotations

import contextlib
import functools
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
ANOTHERS = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|time(d )?out|TCPStore", re.IGNORECASE)


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
        self.said = 0  # a task, that it begins, the next task, ..., and at any time that there is no more
        self.beside = 1 + len(processes)  # processes of this machine, which share its cores

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
            if time.monotonic() - since > ranks.TIMEOUT_S:
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
        """Send the crew home, if there is one."""
        if self.store is None:
            return
        if kind is not None:
            ranks.leave()  # who waits for this process in a step waits no longer
        self.say(None)
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
    with Crew(count, store, tuple(processes)) as crew:
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
    try:
        follow(store, rank, count, local, stop)
        store.set(f"left/{rank}", "")
    except Exception as error:
        line = str(error).partition("\n")[0]
        if is_anothers(error):
            print(f"rank {rank} lost the others: {line}", file=sys.stderr)
        else:
            store.set(f"error/{rank}", f"{type(error).__name__}: {line}")
            raise
        return 1
    return 0


def follow(store: dist.TCPStore, rank: int, count: int, local: int, stop: Stop) -> None:
    """Train and answer as rank 0 does, and write nothing, until it says that there is no more to do."""
    group, console, heard = None, Console(), 0
    while task := receive(store, heard):
        config = task["config"]
        device = choose_device(config["device"], local)
        arithmetic.prepare(config["deterministic"])
        with threads.use(max(1, threads.choose(config) // task["beside"])):
            bank, learner = prepare(task, device, count, console)
            store.set(f"ready/{heard}/{rank}", "")
            if not receive(store, heard + 1):
                break
            group = group or ranks.join(store, rank, count, device)
            heard += 2
            with contextlib.suppress(Interrupted, Diverged):  # rank 0 knows, too
                # Until the steps, which all leave together, it is for rank 0 to stop.
                learner.learn_from(bank, console, functools.partial(store.check, [f"said/{heard}"]), rank)
                work(learner, group, stop)


def prepare(task: dict[str, Any], device: torch.device, count: int, console: Console) -> tuple[Bank, Learner]:
    """What a task is about, once it is known to be the same as where rank 0 is."""
    config = task["config"]
    data, fingerprint = load_images(config["data"], device, console)
    if fingerprint != task["fingerprint"]:
        raise RuntimeError(f"the data are others on {socket.gethostname()} than where rank 0 is")
    bank = Bank(config, data, fingerprint, device)
    if bank.weights() != task["taught"]:
        raise RuntimeError(f"the teachers are others on {socket.gethostname()} than where rank 0 is")
    return bank, Learner(config, data, device, count)


def work(learner: Learner, group: Ranks, stop: Stop) -> None:
    trainer, training = learner.begin(group, stop=stop)
    if state := group.copy(None):
        training.restore(state)
    learner.train(trainer, training)
    with compilation.uncompiled(learner.config["train"]["compile"]):
        learner.answer(trainer, training)


def connect(host: str, port: int, count: int) -> dist.TCPStore:
    return dist.TCPStore(host, port, count, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=30))


def beat(host: str, port: int, rank: int, count: int) -> None:
    """Say in the store that this process is alive, as long as it is and the store is there."""
    store = connect(host, port, count)
    with contextlib.suppress(dist.DistError):
        while True:
            store.set(f"beat/{rank}", str(time.monotonic()))
            time.sleep(BEAT_S)


def receive(store: dist.TCPStore, number: int) -> Any:
    """What rank 0 says next, however long that takes; None: there is no more to do. Raises RuntimeError without rank 0."""
    while not store.check([f"said/{number}"]):
        time.sleep(0.1)
    return json.loads(store.get(f"said/{number}"))


def main() -> int:
    host, *numbers = sys.argv[1:]
    port, rank, count = map(int, numbers)
    with StopRequest() as stop:
        return serve(host, port, rank, count, rank, stop)


if __name__ == "__main__":
    sys.exit(main())
