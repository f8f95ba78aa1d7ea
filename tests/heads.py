"""The users' command as a process of its own, and what it left behind; for tests of sweeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from harness.store.submission import read_submission

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = Path(__file__).parent / "plugin"  # variants that die, as a package of a user's own
PATIENCE_S = 300.0
# The smallest workload with teachers and students.
TINY = ("train.epochs=2", "train.warmup_epochs=1", "teachers.size=2")


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> Any:
    """Wait until the condition holds, and return what it gave."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {patience:g} s"
        time.sleep(0.1)
    return found


class Head:
    """`python -m MODULE ARGUMENTS`, started in the background; its output is in `log`."""

    def __init__(
        self,
        *arguments: str,
        runs: Path,
        environment: dict[str, str] | None = None,
        code: Path = ROOT,
        plugin: bool = False,
        folder: Path | None = None,
        module: str = "harness",
    ):
        self.runs = runs
        runs.mkdir(parents=True, exist_ok=True)
        self.log = runs / f".head-{len(list(runs.glob('.head-*')))}.log"
        environment = dict(os.environ if environment is None else environment)
        # As in a shell's own settings, by a name that means something only from where the head is started.
        path = [str(code), *([os.path.relpath(PLUGIN, folder or code)] if plugin else [])]
        environment |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, f"runs={runs}"],
                cwd=folder or code,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> Any:
        """Wait until the condition holds, and return what it gave; fails with the head's output."""
        try:
            return wait_for(condition, what, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; the head said\n{self.said}") from None

    def ends(self, patience: float = PATIENCE_S) -> int:
        """The exit status, once it has ended; a head that does not end is killed."""
        try:
            self.until(lambda: self.process.poll() is not None, "end of the head", patience)
        finally:
            self.process.kill()
            self.process.wait()
        return self.process.returncode

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def one(runs: Path, pattern: str) -> Path:
    """The only directory of that pattern, such as "*-kd-s0-*" or "teachers/*-m0-*"."""
    (found,) = runs.glob(pattern)
    return found


def records(runs: Path) -> dict[str, dict[str, Any]]:
    """Every record below a folder, teachers included: directory name -> record."""
    places = [*runs.glob("*/record.json"), *runs.glob("teachers/*/record.json")]
    return {place.parent.name: json.loads(place.read_text()) for place in places}


def events(directory: Path, *kinds: str) -> list[dict[str, Any]]:
    """What happened to a run's jobs, oldest first; of those kinds, or all."""
    path = directory / "attempts.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if not kinds or event["event"] in kinds]


def directories(runs: Path) -> list[Path]:
    """Every run's directory, teachers included."""
    places = [*runs.iterdir(), *(runs / "teachers").glob("*")]
    return [place for place in places if (place / "attempts.jsonl").exists()]


def job_of(directory: Path) -> str:
    """The id by which SLURM's commands know a run's job."""
    return read_submission(directory)["job_id"]


def weights(run: Path) -> dict[str, bytes]:
    """A student's weights, bit for bit; the file's header has no fixed order."""
    return {name: array.tobytes() for name, array in load_file(run / "student.safetensors").items()}
