"""The stored predictions of a run: its test logits, and what follows from them image by image."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.records.errors import AnalysisError
from harness.store.files import Damaged
from harness.store.predictions import PREDICTIONS, read_predictions
from harness.store.record import check_files, read_record


class Predictions(NamedTuple):
    """logits [N, K] float32 and labels [N] of one split of a run's data."""

    logits: NDArray
    labels: NDArray

    @property
    def log_probabilities(self) -> NDArray:
        """[N, K], in float64."""
        z = self.logits.astype(float)
        z = z - z.max(1, keepdims=True)
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    @property
    def correct(self) -> NDArray:
        """[N] bool; an answer that is no number is not right."""
        return (self.logits.argmax(1) == self.labels) & ~np.isnan(self.logits).any(1)

    @property
    def nll(self) -> NDArray:
        """[N], in nats."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]

    @property
    def confidence(self) -> NDArray:
        """[N], the largest probability."""
        return np.exp(self.log_probabilities.max(1))


def is_kept(directory: str | Path) -> bool:
    """Whether there is anything in the place of a run's predictions; older runs have kept none."""
    return os.path.lexists(Path(directory) / PREDICTIONS)


def size(directory: str | Path) -> int:
    """Bytes of a run's predictions; 0 where it has kept none."""
    return (Path(directory) / PREDICTIONS).stat().st_size if is_kept(directory) else 0


def read(directory: str | Path, run: str | None = None, split: str = "test") -> Predictions:
    """The predictions of a run, which must be those that its record knows. run: the hash that it must have.

    Raises AnalysisError where they are missing, damaged or of another run.
    """
    directory = Path(directory)
    try:
        record = read_record(directory)
        if record is None:
            raise AnalysisError(f"no record beside the predictions in {directory}")
        if run not in (None, record["hash"]):
            raise AnalysisError(f"{directory} is of run {record['hash']}, not {run}")
        logits, labels = read_predictions(directory)
        about = (directory / PREDICTIONS).stat()
        _check_once(directory.resolve(), (record.get("files") or {}).get(PREDICTIONS), about.st_mtime_ns, about.st_size)
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    return Predictions(logits[split].astype(np.float32), labels[split])


@cache
def _check_once(directory: Path, expected: str | None, *_: int) -> None:
    """Raise Damaged, in this process once, where a run's predictions do not have the digest that its record knows."""
    check_files(directory, {"files": {PREDICTIONS: expected} if expected else {}}, PREDICTIONS)
