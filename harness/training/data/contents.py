"""What a set of files holds, in a few bytes: a hash of what somebody finds out about each of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.store.files import digest

THREADS = 16  # that wait for a file system
PART = 1000  # files that one of them looks at in one go
BLOCK = 4096


def hash_files(about: bytes, names: Sequence[bytes], find: Callable[[bytes], bytes]) -> bytes:
    """A hash of `about`, and of what is found out about each file, in their order."""
    found = hashlib.sha256(about)
    parts = [names[start : start + PART] for start in range(0, len(names), PART)]
    with ThreadPoolExecutor(THREADS) as pool:
        for lines in pool.map(lambda part: b"".join(find(name) + b"\n" for name in part), parts):
            found.update(lines)
    return found.digest()


def size_and_time(name: bytes) -> bytes:
    """Which are others whenever somebody has written to the file, and also where it is a copy."""
    found = os.stat(name)  # noqa: PTH116  a name of bytes
    return b"%d %d" % (found.st_size, found.st_mtime_ns)


def size_and_sample(name: bytes) -> bytes:
    """The size, and a hash of what lies at the beginning, in the middle and at the end: of another picture some of it
    is other, whatever is the same in all headers and margins. A small file is read whole.
    """
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123  a name of bytes
        size = os.fstat(file.fileno()).st_size
        places = (0, (size - BLOCK) // 2, size - BLOCK) if size > 3 * BLOCK else range(0, size, BLOCK)
        blocks = [os.pread(file.fileno(), BLOCK, place) for place in places]
    return b"%d " % size + hashlib.sha256(b"".join(blocks)).digest()


def contents(name: bytes) -> bytes:
    """A hash of all that lies in a file."""
    return digest(Path(os.fsdecode(name))).encode()


def class_and_size(name: bytes) -> bytes:
    """All that fingerprints of older code know of a file."""
    folder, file = os.path.split(name)
    return b"%s/%s %d" % (os.path.basename(folder), file, os.path.getsize(name))  # noqa: PTH119, PTH202
