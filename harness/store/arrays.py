"""Large arrays that are computed once and kept, by many processes: FILE.npy, mapped into memory by who reads it.

Beside it, FILE.json has its checksum, and what it was computed from: where that is something else now, or the file is
damaged, it is computed anew. Written under another name first, so that a part is never read.
"""

from __future__ import annotations

import os
import time
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from harness.store.claim import Claim, TakenOver
from harness.store.files import GUARDS, read_json, write_json

CHUNK_BYTES = 64 << 20


class Beside(TypedDict):
    """What stands beside an array: its checksum, what it was computed from, seconds it took."""

    crc32: int
    origin: list[Any]
    seconds: float


@dataclass
class KeptArray:
    """An array in a file. name: what it is, in words; origin: all that it depends on, a value of JSON; `fill` computes
    it, `say` tells the user what becomes of it.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]
    origin: list[Any]
    fill: Callable[[np.ndarray], None]
    say: Callable[[str], None]

    def get(self, stop: Callable[[], bool] = lambda: False) -> np.ndarray:
        """The array: read, or computed and kept; where it cannot be kept, computed for this process alone.

        Of several processes one computes it, and the others wait. Raises Claimed where `stop` said so meanwhile, and
        whatever `fill` raises.
        """
        found = self.load()
        try:
            if found is None:
                with Claim(self.path.parent, until=stop):
                    found = self.load()  # by now another one may have computed it
                    if found is None:
                        if self.path.exists():
                            self.say(f"{self.path} is damaged, or of other code or weights; it is built anew")
                        self.build()
                        found = self.load()
        except (OSError, TakenOver) as error:  # such as somebody else's bank, a full disk, or a pause of this process
            self.say(f"{self.name} cannot be kept in the bank, this run keeps its own: {error}")
        if found is None:  # the same numbers: what is learned or found must not depend on a disk
            found = np.empty(self.shape, self.dtype)
            self.fill(found)
        return found

    def load(self) -> np.memmap | None:
        """The file mapped into memory; None where it is missing, or is not what stands beside it."""
        if not self.path.is_file():  # a named pipe would be waited for
            return None
        try:
            beside = read_json(self.path.with_suffix(".json"), Beside)
            found = np.load(self.path, mmap_mode="c")  # torch has no read-only tensors; nothing writes
        except Exception:  # noqa: BLE001  whatever numpy makes of it: it is built anew
            return None
        known = isinstance(found, np.memmap) and found.shape == self.shape and found.dtype == self.dtype
        if not known or beside is None or beside["origin"] != self.origin:
            return None
        return found if checksum(found) == beside["crc32"] else None

    def build(self) -> None:
        """Compute and write it. Raises OSError, and TakenOver."""
        started = time.monotonic()
        for left in self.path.parent.glob(
            f".{self.path.name}.*.tmp"
        ):  # by one who died: there is one builder at a time
            left.unlink(missing_ok=True)
        scratch = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            found = np.lib.format.open_memmap(scratch, "w+", self.dtype, self.shape)
            with scratch.open("rb+") as file:  # where the disk is full, writing to the mapping would kill the process
                os.posix_fallocate(file.fileno(), 0, scratch.stat().st_size)
            self.fill(found)
            found.flush()
            beside = {"crc32": checksum(found), "origin": self.origin, "seconds": time.monotonic() - started}
            del found
            if guard := GUARDS.get(self.path.parent.absolute()):
                guard()
            scratch.replace(self.path)
        finally:
            scratch.unlink(missing_ok=True)
        write_json(self.path.with_suffix(".json"), beside)


def checksum(array: np.ndarray) -> int:
    found, flat = 0, array.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), CHUNK_BYTES):
        found = zlib.crc32(flat[start : start + CHUNK_BYTES], found)
    return found
