"""What a run says while it runs, in every place where somebody looks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.runtime.console import Bar, Console, duration
from harness.store.files import append
from harness.store.history import PROGRESS, append_epoch, cut_history, write_progress

FILE_EVERY_S = 2.0


class RunLog:
    """The files of a run that grow while it runs: run.log, history.jsonl and progress.json."""

    def __init__(self, directory: Path, console: Console, title: str, epochs: int):
        self.directory, self.console = directory, console
        self.failed = False
        self.epochs = epochs
        self.bar = Bar(console, title, epochs)
        self.written = 0.0
        self.validation = ""

    def begin(self, epochs: int) -> None:
        """The training begins, after so many epochs of earlier attempts."""
        with self.or_without():
            cut_history(self.directory, epochs)

    def write(self, text: str) -> None:
        """A dated line in run.log."""
        with self.or_without():
            append(self.directory / "run.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text.rstrip()}\n", durable=False)

    @contextlib.contextmanager
    def or_without(self) -> Iterator[None]:
        """A full disk takes the log, not the run; said once. What the run came to is written at its end or not at all."""
        try:
            yield
        except OSError as error:
            if not self.failed:
                self.console.say(f"the log of {self.directory.name} cannot be written ({error.strerror}); it trains on")
            self.failed = True

    def epoch(self, summary: dict[str, Any]) -> None:
        """An epoch's summary, to every place that shows it."""
        with self.or_without():
            append_epoch(self.directory, summary)
        done = summary["epoch"]
        pace = summary["elapsed_s"] / done
        left = (self.epochs - done) * pace
        note = f"epoch {done}/{self.epochs}  loss {summary['loss']:.4f}"
        if "validation" in summary:
            self.validation = f"  val acc {summary['validation']['acc']:.4f}"
        note += self.validation
        note += f"  {summary['images_per_s']:.0f} images/s  {duration(left)} left"
        self.bar.update(done, note)
        if "validation" in summary:
            self.write(note)
        if time.monotonic() - self.written >= FILE_EVERY_S:
            self.written = time.monotonic()
            with self.or_without():
                write_progress(self.directory, done, self.epochs, left)

    def close(self) -> None:
        self.bar.close()
        with self.or_without():
            (self.directory / PROGRESS).unlink(missing_ok=True)
