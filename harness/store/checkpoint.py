"""`checkpoint.pt`: what an interrupted run goes on from, and what that is a checkpoint of.

The file is a SHA-256 of the rest, a line of JSON (`Identity`), and the training's state as bytes; what these mean is the
business of whoever trains. Nothing of it is looked at before the digest fits: torch would load most flipped bits without
a word.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypedDict

from harness.store.files import Count, Damaged, Seconds, parse_json, read_bytes, to_json, write_atomically
from harness.store.fingerprints import agree

CHECKPOINT = "checkpoint.pt"
FORMAT = 3  # 3: arithmetic


class Identity(TypedDict):
    """What a checkpoint is of: the run's hash, fingerprint of the data, hash of the code, and of the weights of the
    teachers; how far it had come, and by which arithmetic.
    """

    format: int
    run: str
    data: str
    code: str
    teachers: str
    epochs: Count
    attempts: Count
    wall_s: Seconds
    arithmetic: list[str]


def write_checkpoint(directory: Path, identity: Identity, state: bytes | memoryview) -> None:
    """Write a checkpoint; a reader sees the last one or this one, never a part."""
    header = to_json(identity).encode() + b"\n"
    digest = hashlib.sha256(header)
    digest.update(state)
    write_atomically(directory / CHECKPOINT, [digest.hexdigest().encode() + b"\n", header, state])


def read_checkpoint(directory: Path) -> tuple[Identity, bytes] | None:
    """A checkpoint's identity and state; None where there is none. Raises Damaged, and Unreadable."""
    path = directory / CHECKPOINT
    content = read_bytes(path)
    if content is None:
        return None
    digest, _, rest = content.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        raise Damaged(f"{path} is damaged, or of an older version: its digest does not fit")
    header, _, state = rest.partition(b"\n")
    identity: Identity = parse_json(header, Identity, str(path))
    if identity["format"] != FORMAT:
        raise Damaged(f"{path} is of format {identity['format']}, not {FORMAT}")
    return identity, state


def check_identity(directory: Path, found: Identity, **expected: str) -> None:
    """Raise Damaged, naming what differs, where a checkpoint is not of this run, data or code."""
    for name, value in expected.items():
        if not (agree(found[name], value) if name == "data" else found[name] == value):
            path = directory / CHECKPOINT
            raise Damaged(
                f"{path} is of {'another ' if name == 'run' else 'other '}{name} ({found[name]}, not {value})"
            )
