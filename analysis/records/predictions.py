"""The stored predictions of a run: its test logits, and what follows from them image by image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.records.errors import AnalysisError
from harness.store.files import Damaged
from harness.store.predictions import PREDICTIONS, read_predictions


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
        """[N] bool."""
        return self.logits.argmax(1) == self.labels

    @property
    def nll(self) -> NDArray:
        """[N], in nats."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]

    @property
    def confidence(self) -> NDArray:
        """[N], the largest probability."""
        return np.exp(self.log_probabilities.max(1))


def read(directory: str | Path, split: str = "test") -> Predictions:
    """The predictions of a run. Raises AnalysisError where the file is missing or damaged."""
    path = Path(directory) / PREDICTIONS
    if not path.exists():
        raise AnalysisError(f"no stored predictions: {path}")
    try:
        logits, labels = read_predictions(path.parent)
    except Damaged as error:
        raise AnalysisError(f"damaged predictions: {error}") from error
    return Predictions(logits[split].astype(np.float32), labels[split])
