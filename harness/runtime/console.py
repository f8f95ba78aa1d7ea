"""What a person sees while something runs: a live bar on a terminal or in a notebook, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

LINE_EVERY_S = 10.0
LOG_WIDTH = 180
STOPPED = 130  # the exit status of what a person stopped


class Lasting:
    """A stream for people that outlives them: a terminal that went away, a full disk behind a redirection or an
    encoding without a character take words, never the process.
    """

    def __init__(self, stream: TextIO, forgiven: tuple[type[Exception], ...] = (OSError, ValueError)):
        self.stream, self.forgiven = stream, forgiven  # ValueError: the stream is closed
        self.gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                encoding = self.stream.encoding or "ascii"
                self.stream.write(text.encode(encoding, "replace").decode(encoding))
            except self.forgiven:
                self.let_go()
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            try:
                self.stream.flush()
            except self.forgiven:
                self.let_go()

    def let_go(self) -> None:
        """What its buffer still holds goes nowhere, or the interpreter would complain of it at its end."""
        self.gone = True
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file, or is closed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


def run_command(main: Callable[[], int]) -> NoReturn:
    """End this process as a command, with the status that `main` returns.

    Who reads its words may leave before it ends, as `head` does; where they are its result and a disk does not take
    them, it fails as ever. Whoever stops it by Ctrl-C knows why it ends.
    """
    sys.stdout, sys.stderr = (Lasting(stream, (BrokenPipeError,)) for stream in (sys.stdout, sys.stderr))
    try:
        status = main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = STOPPED
    sys.exit(status)


def complain(error: object) -> None:
    """What went wrong, as one line on stderr, whatever names are in it."""
    print(f"error: {one_line(str(error))}", file=sys.stderr)


def one_line(text: str) -> str:
    """Text without what would steer a terminal or begin a line: names and messages come from files that anybody may
    have written.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def printable(text: str) -> str:
    """Lines of text, each of them `one_line`."""
    return "\n".join(map(one_line, text.split("\n")))


class Console:
    """The process's one place to say something. `live` draws bars; without it every message is a line."""

    def __init__(self, stream: TextIO | None = None):
        from rich.console import Console as RichConsole

        self.rich = RichConsole(file=Lasting(stream or sys.stdout), highlight=False)
        self.live = self.rich.is_terminal or self.rich.is_jupyter
        if not self.rich.is_terminal:
            self.rich.width = LOG_WIDTH  # a log file has no width of its own; tables must not be squeezed into 80
        self._bars: Any = None

    def say(self, text: str) -> None:
        """One line, above any live bar."""
        if self.rich.is_jupyter:  # where rich would make a block of its own of every line
            print(printable(text), file=self.rich.file, flush=True)
        else:
            self.rich.print(printable(text), markup=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """A table or other rich object."""
        self.rich.print(renderable)

    @property
    def bars(self) -> Any:
        if self._bars is None:
            from rich.progress import BarColumn, Progress, TextColumn

            from harness.runtime.bars import NotebookBars

            title, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
            columns = (title, BarColumn(24), note)
            kind = NotebookBars if self.rich.is_jupyter else Progress
            self._bars = kind(*columns, console=self.rich, transient=True)
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
            self.console.bars.update(self.task, completed=done, note=note, refresh=self.console.rich.is_jupyter)
        elif time.monotonic() - self.said >= LINE_EVERY_S:
            self.said = time.monotonic()
            self.console.say(f"{self.title}  {note}")

    def close(self) -> None:
        if self.task is not None:
            self.console.bars.remove_task(self.task)
            if not self.console.bars.task_ids:
                self.console.close()


def duration(seconds: float) -> str:
    """Such as 45 s, 3:20 min, 2:05 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"


def format_metric(metric: str, value: float) -> str:
    """A metric as tables print it: accuracy in per cent."""
    return f"{100 * value:.2f}" if metric == "acc" else f"{value:.4f}"
