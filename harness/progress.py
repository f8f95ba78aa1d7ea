"""What a person sees while something runs: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from harness.record import write_atomically

LINE_EVERY_S = 10.0
FILE_EVERY_S = 2.0
LOG_WIDTH = 180


class Console:
    """The process's one place to say something. `live` draws bars; without it every message is a line."""

    def __init__(self, stream: TextIO | None = None):
        from rich.console import Console as RichConsole

        self.rich = RichConsole(file=stream or sys.stdout, highlight=False)
        self.live = self.rich.is_terminal
        if not self.live:
            self.rich.width = LOG_WIDTH  # a log file has no width of its own; tables must not be squeezed into 80
        self._bars: Any = None

    def say(self, text: str) -> None:
        """One line, above any live bar."""
        self.rich.print(text, markup=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """A table or other rich object."""
        self.rich.print(renderable)

    @property
    def bars(self) -> Any:
        if self._bars is None:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[note]}"))
            self._bars = Progress(*columns, console=self.rich, transient=True)
            self._bars.start()
        return self._bars

    def close(self) -> None:
        """End live drawing; the terminal is left clean."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class Bar:
    """Progress of one counted thing: a live bar, or a line when LINE_EVERY_S have passed."""

    def __init__(self, console: Console, title: str, total: int):
        self.console, self.title, self.total = console, title, total
        self.said = time.monotonic()
        self.task = console.bars.add_task(title, total=total, note="") if console.live else None

    def update(self, done: int, note: str) -> None:
        if self.task is not None:
            self.console.bars.update(self.task, completed=done, note=note)
        elif time.monotonic() - self.said >= LINE_EVERY_S:
            self.said = time.monotonic()
            self.console.say(f"{self.title}  {note}")

    def close(self) -> None:
        if self.task is not None:
            self.console.bars.remove_task(self.task)
            if not self.console.bars.task_ids:
                self.console.close()


class RunLog:
    """The files of a run that grow while it runs: run.log, history.jsonl and progress.json."""

    def __init__(self, directory: Path, console: Console, title: str, epochs: int, keep_epochs: int):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.epochs = epochs
        self.bar = Bar(console, title, epochs)
        self.written = 0.0
        self.seconds_per_epoch: float | None = None
        history = directory / "history.jsonl"
        # A run that resumes goes on after its checkpoint: later rows belong to steps that will be taken again.
        rows = history.read_text().splitlines() if history.exists() else []
        write_atomically(history, "".join(f"{row}\n" for row in rows[:keep_epochs]))

    def write(self, text: str) -> None:
        """A dated line in run.log."""
        with (self.directory / "run.log").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text.rstrip()}\n")

    def epoch(self, summary: dict[str, Any]) -> None:
        """An epoch's summary, to every place that shows it."""
        with (self.directory / "history.jsonl").open("a") as file:
            file.write(json.dumps(summary) + "\n")
        done = summary["epoch"]
        pace = summary["elapsed_s"] / done
        left = (self.epochs - done) * pace
        note = f"epoch {done}/{self.epochs}  loss {summary['loss']:.4f}"
        if "validation" in summary:
            self.validation = f"  val acc {summary['validation']['acc']:.4f}"
        note += getattr(self, "validation", "")
        note += f"  {summary['images_per_s']:.0f} images/s  {duration(left)} left"
        self.bar.update(done, note)
        if "validation" in summary:
            self.write(note)
        if time.monotonic() - self.written >= FILE_EVERY_S:
            self.written = time.monotonic()
            write_atomically(
                self.directory / "progress.json",
                json.dumps({"epoch": done, "epochs": self.epochs, "left_s": left, "time": time.time()}),
            )

    def close(self) -> None:
        self.bar.close()
        (self.directory / "progress.json").unlink(missing_ok=True)


def duration(seconds: float) -> str:
    """Such as 45 s, 3:20 min, 2:05 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
