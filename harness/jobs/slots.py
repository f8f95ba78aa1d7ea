"""The places in which runs run beside each other: each is the GPU of its runs, or their GPUs, None for the CPU."""

from __future__ import annotations

import os

from harness.config import ConfigError
from harness.runtime import gpus

Slot = str | None


def gpus_for(device: str) -> list[str]:
    """The GPUs that runs with a `device` option may be given, as CUDA_VISIBLE_DEVICES names them; none: the CPU.

    Raises ConfigError where this machine has none such.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return []
    found = gpus.visible()
    if kind == "auto" or (device == "cuda" and found):
        return found
    if kind == "cuda" and number.isdecimal() and (name := gpus.numbered(int(number))):
        return [name]
    chosen = os.environ.get(gpus.VISIBLE)
    hidden = "" if chosen is None else f" ({gpus.VISIBLE}={chosen})"
    raise ConfigError(f"device={device}: {len(found)} GPUs are visible here{hidden}; use auto, cpu, cuda or cuda:N")


def group(names: list[str], devices: int) -> list[str]:
    """Sets of so many GPUs, one set a run. Raises ConfigError where there is not one."""
    if names and len(names) < devices:
        raise ConfigError(f"devices={devices}: {len(names)} GPUs are visible here; device=cpu needs none")
    return [",".join(names[k : k + devices]) for k in range(0, len(names) - devices + 1, devices)]


def spread(count: int, names: list[str]) -> list[Slot]:
    """So many slots, taking turns on the GPUs."""
    return [names[k % len(names)] if names else None for k in range(count)]
