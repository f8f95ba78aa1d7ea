"""`predictions.npz`: the logits of a run's network on validation and test images, recorded and compared."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from harness.config import ConfigError
from harness.data import Dataset
from harness.record import write_atomically
from harness.training import predict

NAME = "predictions.npz"
SPLITS = ("validation", "test")
# Recorded logits are in half precision, and another device or library rounds differently.
LOGIT_TOLERANCE = 0.02  # plus this share of the logit itself
AGREEMENT = 0.995  # of the predicted classes; near ties may go either way

Arrays = dict[str, NDArray]  # by split


def predict_splits(network: nn.Module, data: Dataset) -> Arrays:
    """Logits [N, K] on both splits. The test split is read here and in what is asked after it, nowhere earlier."""
    return {name: predict(network, getattr(data, name)).cpu().numpy() for name in SPLITS}


def labels_of(data: Dataset) -> Arrays:
    """Labels [N] of both splits."""
    return {name: getattr(data, name).labels.cpu().numpy() for name in SPLITS}


def write_predictions(directory: Path, logits: Arrays, labels: Arrays) -> None:
    """Write logits less their maximum, which half precision then keeps to three digits where it matters."""
    buffer = io.BytesIO()
    arrays = {}
    for name in SPLITS:
        arrays[f"{name}_logits"] = (logits[name] - logits[name].max(1, keepdims=True)).astype(np.float16)
        arrays[f"{name}_labels"] = labels[name]
    np.savez_compressed(buffer, **arrays)
    write_atomically(directory / NAME, buffer.getvalue())


def read_logits(directory: Path) -> Arrays:
    """A run's recorded logits [N, K] in float16. Raises ConfigError where the file is missing or damaged."""
    try:
        with np.load(directory / NAME) as file:
            return {name: file[f"{name}_logits"] for name in SPLITS}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{directory / NAME} cannot be read: {error}") from error


def check_predictions(directory: Path, network: nn.Module, data: Dataset) -> float:
    """The largest difference from the recorded test logits. Raises ConfigError where the network is another one."""
    recorded = read_logits(directory)["test"].astype(np.float64)
    logits = predict(network, data.test).double().cpu().numpy()
    logits -= logits.max(1, keepdims=True)
    if logits.shape != recorded.shape:
        raise ConfigError(f"{directory / NAME} has logits {recorded.shape}, the network gives {logits.shape}")
    differences = np.abs(logits - recorded)
    agreement = (logits.argmax(1) == recorded.argmax(1)).mean()
    if (differences > LOGIT_TOLERANCE * (1 + np.abs(recorded))).any() or agreement < AGREEMENT:
        raise ConfigError(
            f"the student of {directory} does not repeat its recorded predictions: "
            f"{100 * agreement:.2f} % the same class, logits up to {differences.max():.3g} apart"
        )
    return float(differences.max())
