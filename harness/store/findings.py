"""What was found out about a teacher set, kept in the bank for every student of it: BANK/found/KIND-KEY.json.

KEY is a hash of all that the finding depends on: this code, the kind of device, the teachers' weights, the data, and
whatever the caller names. So nothing is ever out of date: what changed has another name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from harness.store.files import Damaged, read_json, write_json
from harness.store.weights import digests

Found = dict[str, Any]
Remember = Callable[[str, Any, Callable[[], Found]], Found]  # as Findings are asked


class Kept(TypedDict):
    """A finding as it is kept: what it is of, and a digest of it all."""

    of: str
    found: Found
    digest: str


def origin(code: str, teachers: Sequence[Path], fingerprint: str, device: str) -> list[Any]:
    """All that the answers of these teachers on the data of this fingerprint depend on: code, device, data, weights.

    code: its hash. device: "cpu" or the GPU's name. They are computed in float32 whatever the precision of the training.
    """
    return [code, device, fingerprint, [*digests(teachers).values()]]


class Findings:
    """Findings about the teachers of these directories on the data of this fingerprint, by this code on a device of this
    kind.
    """

    def __init__(self, folder: Path, code: str, teachers: Sequence[Path], fingerprint: str, device: str):
        self.folder, self.about = folder, origin(code, teachers, fingerprint, device)

    def __call__(
        self,
        kind: str,
        about: Any,
        compute: Callable[[], Found],
        agree: Callable[[Found | None], Found | None] = lambda known: known,
        keeps: bool = True,
    ) -> Found:
        """The finding of a kind about something, any value of JSON: read, or else computed and kept. Processes that compute
        it together agree on what is known, and one keeps it.
        """
        key = hashlib.sha256(json.dumps([self.about, about]).encode()).hexdigest()[:16]
        path = self.folder / f"{kind}-{key}.json"
        if (known := agree(read(path))) is not None:
            return known
        found = compute()
        if keeps:
            with contextlib.suppress(OSError, ValueError):  # somebody else's bank, or no numbers: it is computed again
                write_json(path, {"of": path.stem, "found": found, "digest": seal(path.stem, found)})
        return found


def read(path: Path) -> Found | None:
    """What was found; None where that is missing or damaged."""
    with contextlib.suppress(Damaged):
        kept = read_json(path, Kept)
        if kept is not None and kept["of"] == path.stem and kept["digest"] == seal(path.stem, kept["found"]):
            return kept["found"]
    return None


def seal(of: str, found: Found) -> str:
    """A hash of a finding: it goes into the records of all students, and nobody would notice another digit, or that of
    other teachers.
    """
    return hashlib.sha256(json.dumps([of, found], sort_keys=True).encode()).hexdigest()
