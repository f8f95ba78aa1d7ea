"""A file system that fails: the k-th call that would change anything below a folder raises an error, or all from it on.

As SQLite tests its own: with k = 1, 2, 3 ... until nothing fails any more, every place is met where a disk can be full.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGING = ("replace", "rename", "link", "mkdir", "unlink", "rmdir")
FLUSHING = ("write", "fsync")  # of an open file: a disk may take its name and not its content
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """What happened: how many calls would have changed something, and which one failed."""

    def __init__(self, folder: Path, at: int, code: int, lasting: bool):
        self.folder, self.at, self.code, self.lasting = str(folder.resolve()), at, code, lasting
        self.calls = 0
        self.failed: str | None = None

    def touch(self, name: str, path: Any) -> None:
        """Count a call, or raise the error."""
        if isinstance(path, int) or not str(Path(os.fsdecode(path)).absolute()).startswith(self.folder):
            return
        self.calls += 1
        if self.calls == self.at or (self.lasting and self.calls > self.at):
            self.failed = self.failed or f"{name} {Path(os.fsdecode(path)).name}"
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))


@contextmanager
def failing(folder: Path, at: int, code: int = errno.ENOSPC, lasting: bool = False) -> Iterator[Disk]:
    """Below `folder`, the call number `at` fails with an error code; with `lasting`, so do all that follow."""
    disk = Disk(folder, at, code, lasting)
    real_open, real = io.open, {name: getattr(os, name) for name in ("open", *CHANGING, *FLUSHING)}

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            disk.touch("open", file)
        return real_open(file, mode, *arguments, **options)

    def guarded(name: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            disk.touch(name, path)
            return real[name](path, *arguments, **options)

        return call

    def opened_low(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & WRITING:
            disk.touch("open", path)
        return real["open"](path, flags, *arguments, **options)

    def flushing(name: str) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            disk.touch(name, Path(f"/proc/self/fd/{descriptor}").readlink())
            return real[name](descriptor, *arguments)

        return call

    io.open = builtins.open = opened
    os.open = opened_low
    for name in CHANGING:
        setattr(os, name, guarded(name))
    for name in FLUSHING:
        setattr(os, name, flushing(name))
    try:
        yield disk
    finally:
        io.open = builtins.open = real_open
        for name, function in real.items():
            setattr(os, name, function)
