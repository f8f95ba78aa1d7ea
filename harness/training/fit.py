"""Whether a recipe fits the data and the network that it is for."""

from __future__ import annotations

from typing import Any

from torch import nn

from harness.config import ConfigError
from harness.training.data import Dataset


def check_fit(recipe: dict[str, Any], data: Dataset) -> None:
    """Raise ConfigError for a recipe that has no step on these data."""
    if recipe["batch_size"] > len(data.train):
        raise ConfigError(f"train.batch_size={recipe['batch_size']} is more than the {len(data.train)} train images")


def check_parts(recipe: dict[str, Any], network: nn.Module) -> None:
    """Raise ConfigError where batch norm would see one image at a time."""
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    size, parts = recipe["batch_size"], recipe["accumulate"]
    if normed and size == parts:
        raise ConfigError(
            f"train.batch_size={size} in train.accumulate={parts} parts shows batch norm one image at a time: "
            "it needs at least 2"
        )
