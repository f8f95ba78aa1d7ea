"""The device that a run trains on."""

from __future__ import annotations

import functools
import os

import torch

from harness.config import ConfigError
from harness.runtime import gpus


def choose_device(name: str, local: int | None = None) -> torch.device:
    """The device of a `device` option; a GPU is then the process's current one, so that nothing lands on another.

    local: of the processes that share a run, which one of this machine's this is; each takes a GPU of its own, where it
    sees several. Raises ConfigError where this machine has none such.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigError(f"device={name} is not supported; use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(f"device={name}: this process has {count} usable GPUs{hidden()}; use device=cpu or auto")
    if local is not None and 1 < count <= local:
        raise ConfigError(f"device={name} for {local + 1} processes of this machine, which sees {count} GPUs{hidden()}")
    if device.index is None:
        device = torch.device("cuda", freest() if local is None else local % count)
    torch.cuda.set_device(device)
    torch.cuda.get_device_properties(device)  # kept by torch: a record names the GPU even after the GPU was lost
    return device


def hidden() -> str:
    """What else there is to say where GPUs are missing."""
    chosen = os.environ.get(gpus.VISIBLE)
    return "" if chosen is None else f" ({gpus.VISIBLE}={chosen})"


@functools.cache
def freest() -> int:
    """The visible GPU with the most free memory, for all runs of this process; the first where nobody says."""
    count = torch.cuda.device_count()
    if count == 1:
        return 0
    # By UUID: nvidia-smi counts GPUs in another order. Properties are read without memory on the GPU.
    names = [f"GPU-{torch.cuda.get_device_properties(k).uuid}" for k in range(count)]
    free = gpus.free_bytes(names)
    return max(range(count), key=lambda k: free.get(names[k], 0))


def is_lost() -> bool:
    """Whether this process's GPU answers no more: after a failed assertion or an illegal access in a kernel, every
    later call of CUDA in the process fails.
    """
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def device_kind(device: torch.device) -> str:
    """What computes there: "cpu", or the GPU's name; two kinds round differently."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
