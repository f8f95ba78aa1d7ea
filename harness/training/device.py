"""The device that a run trains on."""

from __future__ import annotations

import torch

from harness.config import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of a `device` option. Raises ConfigError where this machine has none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device={name}: this machine has {torch.cuda.device_count()} usable GPUs; use device=cpu")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name} is not supported; use auto, cpu, cuda or cuda:N")
    return device


def device_kind(device: torch.device) -> str:
    """What computes there: "cpu", or the GPU's name; two kinds round differently."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
