"""`python -m harness.bench.packing FILE [--mps] [OPTION=VALUE ...]`: what k processes train beside each other on one device.

What `sweep.pack` is for. All processes start and warm up first; then k of them train at a time, as long as WINDOW_S, and the
others rest. FILE is written after each k. With `--mps` they share the GPU through a daemon of NVIDIA's MPS that is started
here and ends with this command.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.store.files import write_json

COUNTS = (1, 2, 4, 8)
WINDOW_S = 2.0
RUN = 30 * 50_000  # images of a run whose rate an hour is given: the epochs of train=short, the images of CIFAR
CONTROL = "nvidia-cuda-mps-control"
ANSWER_S = 6.0  # that it may take to answer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.bench.packing", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="-: be one of the processes")
    parser.add_argument("--mps", action="store_true")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION=VALUE", help="as of harness.bench; the last of methods trains"
    )
    given = parser.parse_intermixed_args(arguments)
    if str(given.file) == "-":
        work(given.options)
        return 0
    found = {"options": given.options, "mps": given.mps, "served_by_mps": False, "run_images": RUN, "cells": []}
    write_json(given.file, found, 1)
    if given.mps and not shutil.which(CONTROL):
        print(f"there is no {CONTROL} on this machine: nothing to compare")
        return 0
    with mps() if given.mps else contextlib.nullcontext({}) as environment:
        compare(given, found, environment)
    return 0


def compare(given: argparse.Namespace, found: dict[str, Any], environment: dict[str, str]) -> None:
    """Every count of processes in turn; what is found goes to the file."""
    command = [sys.executable, "-m", "harness.bench.packing", "-", *given.options]
    with contextlib.ExitStack() as stack:
        workers = []
        for _ in range(max(COUNTS)):
            worker = subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(worker.kill)
            workers.append(worker)
        for worker in workers:
            hear(worker)  # that it is ready
        found["served_by_mps"] = given.mps and has_server(environment)
        for count in COUNTS:
            for worker in workers[:count]:
                print(WINDOW_S, file=worker.stdin, flush=True)
            rate = sum(float(hear(worker)) for worker in workers[:count])
            found["cells"].append({"processes": count, "images_per_s": rate, "runs_per_hour": 3600 * rate / RUN})
            write_json(given.file, found, 1)


def hear(worker: subprocess.Popen) -> str:
    """A process's next line. Raises RuntimeError where it has died."""
    if line := worker.stdout.readline():
        return line
    raise RuntimeError(f"a process beside others died with exit code {worker.wait()}")


def work(arguments: list[str]) -> None:
    """One of the processes: ready, it trains for as many seconds as each line of its input says, and answers with a rate."""
    import torch

    from harness.bench.measurement import synchronise, warm_up, watch_compilations
    from harness.bench.subjects import make_subjects, read_options
    from harness.training.device import choose_device

    options = read_options(arguments)
    torch.set_num_threads(options.threads or 1)
    device = choose_device(options.device)
    subject = make_subjects(options, False, device)[-1]
    with watch_compilations() as compilations:
        warm_up(subject, compilations)
    synchronise(device)
    print("ready", flush=True)
    for line in sys.stdin:
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < float(line):
            subject.step(4)
            synchronise(device)  # else the host would run ahead of the window's end
            steps += 4
        print(steps * options.batch / (time.perf_counter() - start), flush=True)


@contextlib.contextmanager
def mps() -> Iterator[dict[str, str]]:
    """A daemon of MPS in a place of its own; yields what makes a process its client. The card's settings stay as they are."""
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        environment = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        # Without pipes, which the daemon would keep open; and not by `run`, which kills what it waits for when this process
        # is ended: a daemon that had just been born would stay.
        starting = subprocess.Popen([CONTROL, "-d"], env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
        try:
            if code := starting.wait(ANSWER_S):
                raise RuntimeError(f"{CONTROL} -d ended with exit code {code}: no daemon of MPS")
            yield environment
        finally:
            if starting.wait(ANSWER_S) == 0:
                tell("quit", environment)


def tell(command: str, environment: dict[str, str]) -> str:
    """A command to the daemon; returns its answer. Raises RuntimeError where there is none."""
    settings: dict[str, Any] = {
        "env": {**os.environ, **environment},
        "capture_output": True,
        "text": True,
        "check": True,
    }
    try:
        return subprocess.run([CONTROL], input=f"{command}\n", timeout=ANSWER_S, **settings).stdout
    except subprocess.SubprocessError as error:
        raise RuntimeError(f"MPS does not answer to {command}: {error}") from error


def has_server(environment: dict[str, str]) -> bool:
    """Whether the daemon serves anybody: processes that cannot reach it would train without it."""
    return bool(tell("get_server_list", environment).strip())


if __name__ == "__main__":
    # At once, from wherever it waits: the processes and the daemon must end first.
    signal.signal(signal.SIGTERM, lambda *about: sys.exit(130))
    sys.exit(main())
