"""`student.safetensors`: the state of a run's deployed plain network, as arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from harness.store.files import Damaged, digest, read_bytes, reason, write_atomically

WEIGHTS = "student.safetensors"


def write_weights(directory: Path, state: dict[str, NDArray], about: dict[str, str]) -> str:
    """Write arrays by name, with `about` as the file's metadata; returns the file's SHA-256."""
    content = save({name: np.asarray(array, order="C") for name, array in state.items()}, about)
    return write_atomically(directory / WEIGHTS, in_order(content))


def in_order(content: bytes) -> bytes:
    """A safetensors file with its header's keys sorted, so that equal runs write equal bytes: a length of 8 bytes, JSON
    of that length (blanks may follow it), then the arrays, to which the JSON's offsets are relative.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def digests(directories: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each run's weights, by its name: what it is, where the name only says how it was made."""
    return {directory.name: digest(directory / WEIGHTS) for directory in directories}


def read_weights(directory: Path) -> dict[str, NDArray]:
    """The arrays by name. Raises Damaged where there is no such file, or none to be believed."""
    path = Path(directory) / WEIGHTS
    content = read_bytes(path)
    if content is None:
        raise Damaged(f"{path} is missing")
    try:
        return load(content)
    except Exception as error:
        raise Damaged(f"{path} does not hold a network: {reason(error)}") from error
