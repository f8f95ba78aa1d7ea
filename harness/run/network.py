"""The deployed network of a run, to disk and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config.methods import build_method
from harness.store.files import Damaged
from harness.store.weights import WEIGHTS, read_weights, write_weights
from harness.training import networks
from harness.training.data import Dataset


def write_network(directory: Path, network: nn.Module, about: dict[str, str]) -> str:
    """Write a network's state, with `about` as the file's metadata; returns the file's SHA-256."""
    return write_weights(
        directory, {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}, about
    )


def build_network(config: dict[str, Any], data: Dataset, generator: torch.Generator | None = None) -> nn.Module:
    """The plain network of a run's configuration, for its data. Raises ValueError where there is none."""
    options = config.get("network")
    return networks.build(config["model"], data.classes, data.mean, data.sd, generator, data.size, options)


def read_network(directory: Path, config: dict[str, Any], data: Dataset) -> nn.Module:
    """The network that a run of this configuration deployed, in evaluation mode, frozen, on the CPU.

    Raises Damaged where the file holds none such, ConfigError where its method is not known.
    """
    network = build_method(config).form(build_network(config, data), max(1, config["teachers"]["size"]))
    state = {name: torch.from_numpy(array) for name, array in read_weights(directory).items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise Damaged(f"{directory / WEIGHTS} does not hold the run's network: {first}") from error
    return network.eval().requires_grad_(False)
