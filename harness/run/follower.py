"""One of the crew of a run on several devices: it trains and answers with rank 0, step by step, and writes nothing.

    python -m harness.run.follower HOST PORT RANK COUNT      started by rank 0, whose store is there

Where rank 0 has failed or is gone it ends, whatever it is at: it has nothing of its own to save.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness.evaluation.evaluation import Evaluation
from harness.run.bank import Bank
from harness.run.crew import BEAT_S, CONNECT_S, FAILED, is_anothers
from harness.run.data import load_images
from harness.run.learner import Learner
from harness.run.network import read_network
from harness.runtime import patience
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted, Stop, StopRequest
from harness.training import arithmetic, compilation, ranks, threads
from harness.training.device import choose_device
from harness.training.ranks import Ranks
from harness.training.trainer import Diverged


def serve(host: str, port: int, rank: int, count: int, local: int, stop: Stop) -> int:
    """Train with rank 0 whatever it says, as one of its crew, on the machine's GPU number `local`; returns the exit
    status.
    """
    over = threading.Event()
    try:
        store = connect(host, port, count)
        store.set(f"place/{rank}", f"process {os.getpid()} on {socket.gethostname()}")
        threading.Thread(target=beat, args=(host, port, rank, count, over), daemon=True).start()
        follow(store, rank, count, local, stop)
        over.set()
        store.set(f"left/{rank}", "")
    except Exception as error:
        over.set()
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
            bank, learner, evaluation = prepare(task, device, count, console)
            store.set(f"ready/{heard}/{rank}", "")
            if not receive(store, heard + 1):
                break
            group = group or ranks.join(store, rank, count, device)
            heard += 2
            if task["trained"]:
                network = read_network(Path(task["trained"]), config, learner.data).to(device)
                evaluation.try_elsewhere(network, bank, group)
                continue
            with contextlib.suppress(Interrupted, Diverged):  # rank 0 knows, too
                # Until the steps, which all leave together, it is for rank 0 to stop.
                learner.learn_from(bank, console, functools.partial(store.check, [f"said/{heard}"]), rank)
                work(learner, evaluation, bank, group, stop)


def prepare(
    task: dict[str, Any], device: torch.device, count: int, console: Console
) -> tuple[Bank, Learner, Evaluation]:
    """What a task is about, once it is known to be the same as where rank 0 is."""
    config = task["config"]
    data, fingerprint = load_images(config["data"], device, console)
    if fingerprint != task["fingerprint"]:
        raise RuntimeError(f"the data are others on {socket.gethostname()} than where rank 0 is")
    bank = Bank(config, data, fingerprint, device)
    if bank.weights() != task["taught"]:
        raise RuntimeError(f"the teachers are others on {socket.gethostname()} than where rank 0 is")
    return bank, Learner(config, data, device, count), Evaluation(config, task["wanted"], data, console)


def work(learner: Learner, evaluation: Evaluation, bank: Bank, group: Ranks, stop: Stop) -> None:
    trainer, training = learner.begin(group, stop=stop)
    if state := group.copy(None):
        training.restore(state)
    learner.train(trainer, training)
    with compilation.uncompiled(learner.config["train"]["compile"]):
        network, _ = learner.answer(trainer, training)
        learner.examine(evaluation, trainer, training, network, bank)


def connect(host: str, port: int, count: int) -> dist.TCPStore:
    timeout = timedelta(seconds=CONNECT_S)
    store = dist.TCPStore(host, port, count, is_master=False, wait_for_workers=False, timeout=timeout)
    store.set_timeout(timedelta(seconds=patience.of_ranks()))
    return store


def beat(host: str, port: int, rank: int, count: int, over: threading.Event) -> None:
    """Say in the store that this process is alive, until its part is over; end it where rank 0 has failed or is gone."""
    with contextlib.suppress(dist.DistError):
        store = connect(host, port, count)
        while not store.check([FAILED]):
            store.set(f"beat/{rank}", str(time.monotonic()))
            if over.wait(BEAT_S):
                return
    if not over.is_set():
        print(f"rank {rank} lost rank 0, and ends", file=sys.stderr)
        os._exit(1)  # the step it is in may wait for long


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
