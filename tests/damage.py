"""Damages to a file, one by one: what disks, power cuts, other programs and people do to it.

Each is a name and a function that inflicts it on a path. Nothing here knows what the file was: tests inflict every
damage on every file, and ask its reader.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

MANY = int(os.environ.get("HARNESS_FUZZ", 0))  # the long form: how many bits and places to cut, of each file
# In a node's place: of every other type, of no size, out of every range.
WRONG = (None, True, -1, 1e308, 10**30, float("nan"), float("inf"), "", "x\x1b[31m", [], [[1]], {}, {"a": None})


class Damage(NamedTuple):
    """inflict: does it to the file at a path; a reader has then no right to hang, nor to raise what it does not name."""

    name: str
    inflict: Callable[[Path], None]


def contents(name: str, content: bytes) -> Damage:
    """Other contents in a file's place."""

    def inflict(path: Path) -> None:
        remove(path)
        path.write_bytes(content)

    return Damage(name, inflict)


def remove(path: Path) -> None:
    """Clear a path of whatever is there."""
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            inner.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def flips(content: bytes, few: int = 60, seed: int = 0) -> Iterator[Damage]:
    """Single bits that are others: `few` of them, or in the long form as many as it says."""
    bits = range(8 * len(content))
    for bit in sorted(random.Random(seed).sample(bits, min(MANY or few, len(bits)))):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield contents(f"bit {bit} flipped", bytes(changed))


def cuts(content: bytes, few: int = 20, seed: int = 0) -> Iterator[Damage]:
    """What a full disk, or a power cut, leaves of a file: its beginning, and NULs for the rest."""
    places = range(len(content))
    for place in sorted(random.Random(seed).sample(places, min(MANY or few, len(places)))):
        yield contents(f"cut after {place} bytes", content[:place])
        yield contents(f"NULs after {place} bytes", content[:place].ljust(len(content), b"\0"))


def texts() -> Iterator[Damage]:
    """Contents that break readers of text and of JSON."""
    for name, content in {
        "empty": b"",
        "one NUL": b"\0",
        "a page of NULs": bytes(4096),
        "no UTF-8": b'{"a": "\xff\xfe"}',
        "UTF-16": '{"a": 1}'.encode("utf-16"),
        "a lone surrogate": b'{"a": "\\ud800"}',
        "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
        "a number of 10,000 digits": b"9" * 10_000,
        "deep nesting": b"[" * 100_000,
        "deep nesting, closed": b"[" * 100_000 + b"]" * 100_000,
        "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "NaN": b"NaN",
        "-Infinity": b"-Infinity",
        "1e999": b"1e999",
        "null": b"null",
        "true": b"true",
        "a number": b"7",
        "a text": b'"x"',
        "a list": b"[]",
        "a list of nulls": b"[null, null]",
        "an object": b"{}",
        "half an object": b'{"a": ',
        "two values": b"{} {}",
        "lines of wrong types": b"null\n7\n[]\n{}\n",
        "random bytes": random.Random(1).randbytes(3000),
        "a zip without anything": b"PK\x05\x06" + bytes(18),
        "a zip that begins": b"PK\x03\x04" + bytes(40),
        "a pickle": b"\x80\x04N.",
        "version 99": b'{"version": 99, "format": 99, "hash": "x", "status": "done"}',
    }.items():
        yield contents(name, content)


def places() -> Iterator[Damage]:
    """Other things than a file in a file's place; root too cannot read them."""

    def listening(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(path.parent)  # names of sockets must be short
            try:
                server.bind(path.name)
            finally:
                os.chdir(here)

    things: dict[str, Callable[[Path], None]] = {
        "a directory": lambda path: path.mkdir(),
        "a named pipe": lambda path: os.mkfifo(path),
        "a link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a socket": listening,
        "a file of 8 TB": lambda path: (path.touch(), os.truncate(path, 1 << 43)),
    }
    if Path("/proc/self/mem").exists():  # opens, and then its first page cannot be read: EIO
        things["an I/O error"] = lambda path: path.symlink_to("/proc/self/mem")
    for name, make in things.items():

        def inflict(path: Path, make: Callable[[Path], None] = make) -> None:
            remove(path)
            make(path)

        yield Damage(name, inflict)


def values(value: Any, seal: Callable[[Any], Any] = lambda value: value) -> Iterator[Damage]:
    """A valid JSON value with each of its nodes replaced by each wrong one, or gone. `seal` mends what else must fit,
    such as a digest.
    """
    for name, changed in variants(value):
        try:
            sealed = seal(changed)
        except Exception:  # noqa: BLE001  what cannot be sealed cannot be in a sealed file
            continue
        yield contents(name, json.dumps(sealed).encode())


def variants(value: Any, place: str = "$") -> Iterator[tuple[str, Any]]:
    """Every wrong variant of a JSON value, with a name."""
    for wrong in WRONG:
        yield f"{place} = {str(wrong)[:20]!r}", wrong
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{place}.{key} gone", {k: v for k, v in value.items() if k != key}
            for name, changed in variants(inner, f"{place}.{key}"):
                yield name, {**value, key: changed}
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            for name, changed in variants(inner, f"{place}[{k}]"):
                yield name, [*value[:k], changed, *value[k + 1 :]]


@contextmanager
def refusing(path: Path, code: int = errno.EACCES) -> Iterator[None]:
    """A file that cannot be opened, whoever asks: root is refused nothing by permissions."""
    real = os.open

    def refuse(name: Any, *arguments: Any, **options: Any) -> int:
        if not isinstance(name, int) and Path(os.fsdecode(name)) == path:
            raise OSError(code, os.strerror(code), str(path))
        return real(name, *arguments, **options)

    os.open = refuse
    try:
        yield
    finally:
        os.open = real


class Hangs(BaseException):
    """What was asked for did not come in time; no handler of ordinary errors takes it."""


@contextmanager
def in_time(seconds: float = 30.0) -> Iterator[None]:
    """Raise Hangs in what takes longer; in the main thread of a process."""

    def ring(*_: Any) -> None:
        raise Hangs(f"not within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
