"""What was found out about a teacher set, kept in the bank for every student of it: BANK/found/KIND-KEY.json.

KEY is a hash of all that the finding depends on: this code, the teachers' weights, the data, and whatever the caller
names. So nothing is ever out of date: what changed has another name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.store import provenance
from harness.store.files import Damaged, digest, read_json, write_json
from harness.store.weights import WEIGHTS

Found = dict[str, Any]


def origin(teachers: Sequence[Path], fingerprint: str) -> list[Any]:
    """All that the answers of these teachers on the data of this fingerprint depend on: code, data, weights."""
    return [provenance.code(), fingerprint, [digest(teacher / WEIGHTS) for teacher in teachers]]


class Findings:
    """Findings about the teachers of these directories on the data of this fingerprint."""

    def __init__(self, folder: Path, teachers: Sequence[Path], fingerprint: str):
        self.folder, self.about = folder, origin(teachers, fingerprint)

    def __call__(self, kind: str, about: Any, compute: Callable[[], Found]) -> Found:
        """The finding of a kind about something, any value of JSON: read, or else computed and kept."""
        key = hashlib.sha256(json.dumps([self.about, about]).encode()).hexdigest()[:16]
        path = self.folder / f"{kind}-{key}.json"
        with contextlib.suppress(Damaged):
            if (known := read_json(path, Found)) is not None:
                return known
        found = compute()
        with contextlib.suppress(OSError):  # somebody else's bank: the next student computes it again
            write_json(path, found)
        return found
