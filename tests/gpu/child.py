"""A check in a process of its own: what it does to a device, to memory or to a compiler stays there.

`python -m tests.gpu.child BODY FOLDER DEVICE [small]`
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch

from tests.gpu.checks import Check
from tests.gpu.sheet import Sheet, read_sheet

ROOT = Path(__file__).parents[2]
GRACE_S = 5.0  # between the request to end and the end of a check that took too long


class Outcome(NamedTuple):
    """What a check came to; its fields are the keys of a line of the page."""

    check: int
    title: str
    passed: bool
    measured: dict
    seconds: float

    def __str__(self) -> str:
        found = ", ".join(f"{name} {show(value)}" for name, value in self.measured.items())
        return f"check {self.check:2} {'passed' if self.passed else 'FAILED'} in {self.seconds:.0f} s: {self.title}: {found}"


def show(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def start_check(check: Check, folder: Path, device: str = "cuda", small: bool = False) -> Outcome:
    """Run a check in a fresh interpreter, which is ended where it takes longer than its limit."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-u", "-m", "tests.gpu.child", check.body, str(folder), device, *["small"] * small]
    started, log = time.monotonic(), folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        code = process.wait(check.limit_s)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        end(process)
    seconds = time.monotonic() - started
    found = read_sheet(folder)
    wrong = found["wrong"]
    if code is None:
        wrong.append(f"it was not done after {check.limit_s:.0f} s")
    elif code or not found["finished"]:
        wrong.append(f"it ended with exit code {code}: {last_line(log)}")
    measured = {**found["measured"], **({"wrong": wrong} if wrong else {})}
    return Outcome(check.number, check.title, not wrong, measured, round(seconds, 1))


def end(process: subprocess.Popen) -> None:
    """End a check and what it has started: with a request first, which a sweep passes on to its runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "it said nothing"


def end_with(parent: int) -> None:
    """End this process and what it has started when the one that started it is gone, however that was ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(body: str, folder: str, device: str, *options: str) -> None:
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    module, _, name = body.partition(":")
    chosen = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)
    sheet = Sheet(chosen, Path(folder), small="small" in options)
    getattr(import_module(f"tests.gpu.{module}"), name)(sheet)
    sheet.write(finished=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
