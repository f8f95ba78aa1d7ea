"""`predictions.npz`: the logits of a run's network on validation and test images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.store.files import Damaged, read_bytes, reason, write_atomically

PREDICTIONS = "predictions.npz"
SPLITS = ("validation", "test")

Arrays = dict[str, NDArray]  # by split


def write_predictions(directory: Path, logits: Arrays, labels: Arrays) -> str:
    """Write logits less their maximum, which half precision then keeps to three digits where it matters; returns the
    file's SHA-256.
    """
    buffer = io.BytesIO()
    arrays = {}
    for name in SPLITS:
        below_maximum = logits[name] - logits[name].max(1, keepdims=True)
        arrays[f"{name}_logits"] = below_maximum.clip(np.finfo(np.float16).min).astype(np.float16)
        arrays[f"{name}_labels"] = labels[name]
    np.savez_compressed(buffer, **arrays)
    return write_atomically(directory / PREDICTIONS, buffer.getvalue())


def read_predictions(directory: Path) -> tuple[Arrays, Arrays]:
    """A run's recorded logits [N, K] in float16 and labels [N] int64, by split.

    Raises Damaged where there are none, or none to be believed.
    """
    path = Path(directory) / PREDICTIONS
    content = read_bytes(path)
    if content is None:
        raise Damaged(f"{path} is missing")
    try:
        with np.load(io.BytesIO(content)) as file:
            logits, labels = ({name: file[f"{name}_{what}"] for name in SPLITS} for what in ("logits", "labels"))
    except Exception as error:
        raise Damaged(f"{path} holds no predictions ({reason(error)})") from error
    for name in SPLITS:
        if not are_predictions(logits[name], labels[name]):
            raise Damaged(f"{path} holds no predictions (its {name} arrays are no logits [N, K] with labels [N])")
    return logits, labels


def are_predictions(logits: Any, labels: Any) -> bool:
    """Whether a split's members of the file are logits [N, K], and labels [N] among its classes."""
    if not (isinstance(logits, np.ndarray) and isinstance(labels, np.ndarray)):  # numpy hands others out as bytes
        return False
    if not (logits.ndim == 2 and logits.size and logits.dtype.kind == "f" and np.isfinite(logits).all()):
        return False
    named = labels.shape == logits.shape[:1] and labels.dtype.kind in "iu"
    return bool(named and labels.min() >= 0 and labels.max() < logits.shape[1])
