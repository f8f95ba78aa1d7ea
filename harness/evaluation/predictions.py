"""A network's logits on validation and test images, and whether they are those that were recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from harness.config import ConfigError
from harness.store.predictions import PREDICTIONS, SPLITS, Arrays, read_predictions
from harness.training.data import Dataset
from harness.training.inference import predict
from harness.training.ranks import ALONE, Ranks

# Recorded logits are in half precision, and another device or library rounds differently.
LOGIT_TOLERANCE = 0.02  # plus this share of the logit itself
AGREEMENT = 0.995  # of the predicted classes; near ties may go either way


def predict_splits(network: nn.Module, data: Dataset, ranks: Ranks = ALONE) -> Arrays:
    """Logits [N, K] on both splits. The test split is read here and in what is asked after it, nowhere earlier."""
    return {name: predict(network, getattr(data, name), ranks=ranks).cpu().numpy() for name in SPLITS}


def labels_of(data: Dataset) -> Arrays:
    """Labels [N] of both splits."""
    return {name: getattr(data, name).labels.cpu().numpy() for name in SPLITS}


def check_predictions(directory: Path, network: nn.Module, data: Dataset) -> float:
    """The largest difference from the recorded test logits. Raises ConfigError where the network is another one."""
    recorded = read_predictions(directory)[0]["test"].astype(np.float64)
    logits = predict(network, data.test).double().cpu().numpy()
    logits -= logits.max(1, keepdims=True)
    if logits.shape != recorded.shape:
        raise ConfigError(f"{directory / PREDICTIONS} has logits {recorded.shape}, the network gives {logits.shape}")
    differences = np.abs(logits - recorded)
    agreement = (logits.argmax(1) == recorded.argmax(1)).mean()
    if (differences > LOGIT_TOLERANCE * (1 + np.abs(recorded))).any() or agreement < AGREEMENT:
        raise ConfigError(
            f"the student of {directory} does not repeat its recorded predictions: "
            f"{100 * agreement:.2f} % the same class, logits up to {differences.max():.3g} apart"
        )
    return float(differences.max())
