"""`student.safetensors`: the deployed plain network of a run, written and read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from harness import networks
from harness.config import ConfigError
from harness.data import Dataset
from harness.record import write_atomically

NAME = "student.safetensors"


def write_weights(directory: Path, network: nn.Module, about: dict[str, str]) -> None:
    """Write a network's state, with `about` as the file's metadata."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(directory / NAME, save(state, about))


def read_network(directory: Path, model: str, data: Dataset) -> nn.Module:
    """A run's network in evaluation mode, frozen, on the CPU. Raises ConfigError where the file holds none of that
    model.
    """
    network = networks.build(model, data.classes, data.mean, data.sd, size=data.size)
    try:
        network.load_state_dict(load_file(directory / NAME))
    except (OSError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{directory / NAME} does not hold the run's network: {first}") from error
    return network.eval().requires_grad_(False)
