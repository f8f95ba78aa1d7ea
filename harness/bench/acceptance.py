"""Everything about a GPU in eight minutes: parts, each a process of its own with a limit, and one page about them all.

A part that dies, hangs or is cut takes nothing with it: what it wrote until then counts. Time that a part leaves is there for
those after it. The page and its JSON are written after each part.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.bench import page
from harness.bench.parts import LARGE, MACHINE, SMALL, Part, plan
from harness.runtime.console import Console, complain, duration
from harness.runtime.interruption import Stop, StopRequest
from harness.store.files import Damaged, read_json, read_json_lines, write_atomically, write_json
from harness.store.provenance import ROOT
from harness.store.record import RECORD, read_record

GRACE_S = 8.0  # between asking a process that is over its time to end, and ending it


class Acceptance:
    """An acceptance on its way. found: about each part that has ended, what the page shows."""

    def __init__(self, folder: Path, sweep: list[str], small: bool):
        self.folder, self.sweep, self.small = Path(folder).absolute(), sweep, small
        self.console = Console()
        self.found: list[dict[str, Any]] = []

    def run(self) -> int:
        """All parts; returns the exit status: 0 they came to an end, 1 there is nothing to begin with, 2 not all did."""
        if (self.folder / "acceptance.json").exists():
            complain(f"{self.folder} holds an acceptance: name another folder")
            return 1
        self.folder.mkdir(parents=True, exist_ok=True)
        with StopRequest() as stop:
            due = time.monotonic() + MACHINE.seconds * (SMALL if self.small else LARGE).patience
            machine = self.take(MACHINE, due, stop)
            # Where nothing is known of the machine there may be a card that hangs: the sizes are those of a GPU then.
            self.small |= machine is not None and machine["card"] is None
            sizes = SMALL if self.small else LARGE
            for part in plan(sizes, self.sweep):
                due += part.seconds * sizes.patience
                if not stop():
                    self.take(part, due, stop)
        self.console.say(f"{self.folder / 'acceptance.md'}")
        return 0 if all(part["status"] == "done" for part in self.found) and not stop() else 2

    def take(self, part: Part, due: float, stop: Stop) -> Any:
        """Run a part until `due` at the latest, and write the page; returns its result, or None."""
        self.console.say(f"{part.title}: at most {duration(max(0.0, due - time.monotonic()))}")
        start = time.monotonic()
        status, why = self.execute(part, due, stop)
        about = {"name": part.name, "title": part.title, "status": status, "why": why}
        about |= {"seconds": round(time.monotonic() - start, 1), "result": read_result(self.folder / part.output)}
        self.found.append(about)
        self.console.say(f"{part.title}: {status}{f' ({why})' if why else ''} after {duration(about['seconds'])}")
        report = page.describe(self.found, self.small)
        write_json(self.folder / "acceptance.json", report, 1)
        write_atomically(self.folder / "acceptance.md", page.render(report))
        return about["result"]

    def execute(self, part: Part, due: float, stop: Stop) -> tuple[str, str | None]:
        """A part's process from begin to end; how it ended (done, cut, failed), and why."""
        if time.monotonic() >= due:
            return "cut", "no time was left for it"
        command = [sys.executable, *(word.replace("{folder}", str(self.folder)) for word in part.command)]
        extra = {name: value.replace("{folder}", str(self.folder)) for name, value in part.environment.items()}
        if self.small:
            extra["CUDA_VISIBLE_DEVICES"] = ""
        log = self.folder / f"{part.name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **extra},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it starts can be ended with it
            )
            try:
                while process.poll() is None and time.monotonic() < due and not stop():
                    time.sleep(0.05)
                ended = process.poll() is not None
            finally:
                end(process)
        if not ended:
            return "cut", f"{'stopped' if stop() else 'its time was over'}; the last it said: {last_line(log)}"
        if process.returncode in part.fine:
            return "done", None
        return "failed", f"exit code {process.returncode}: {last_line(log)}"


def end(process: subprocess.Popen) -> None:
    """End a process that has not, and whatever of its own it left behind."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):  # there is nobody left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_result(path: Path) -> Any:
    """What a part left: a JSON value, lines of them, or the records of a folder of runs; None where it left nothing."""
    try:
        if path.is_dir():
            return read_runs(path)
        return (read_json_lines(path) or None) if path.suffix == ".jsonl" else read_json(path)
    except Damaged as error:
        return {"damaged": str(error)}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """About each run below a folder, teachers first."""
    found = []
    for path in [*sorted(folder.glob(f"teachers/*/{RECORD}")), *sorted(folder.glob(f"*/{RECORD}"))]:
        record = read_record(path.parent)
        test = (record["metrics"] or {}).get("student", {}).get("test", {})
        cost = record["cost"] or {}
        about = {"run": path.parent.name, "status": record["status"], "acc": test.get("acc")}
        about["captured"] = record["provenance"].get("captured")
        found.append(about | {name: cost.get(name) for name in ("wall_s", "images_per_s", "peak_memory_bytes")})
    return found


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it said nothing")
