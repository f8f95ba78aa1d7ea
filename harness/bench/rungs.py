"""The rungs of the ladder of speed-ups: one more at a time, the others staying in force."""

from __future__ import annotations

from typing import Any

from harness.config import ConfigError

# By name: what each changes in the options of a measurement.
LADDER: dict[str, dict[str, Any]] = {
    "eager TF32": {"precision": "tf32", "channels_last": False, "compile": None, "capture": False},
    "+ channels_last": {"channels_last": True},
    "+ bfloat16": {"precision": "bfloat16"},
    "+ captured": {"capture": True},
    "compiled instead": {"capture": False, "compile": "default"},
    "compiled, recorded": {"compile": "reduce-overhead"},
}
GPU_ONLY = ("+ captured", "compiled, recorded")  # CUDA graphs


def choose_rungs(numbers: str | None) -> list[str]:
    """Names of rungs by their numbers, such as "1,2,3" from the bottom; None: all. Raises ConfigError."""
    names = list(LADDER)
    if numbers is None:
        return names
    numbered = {str(k + 1): name for k, name in enumerate(names)}
    if wrong := [number for number in numbers.split(",") if number not in numbered]:
        raise ConfigError(f"--rungs is numbers from 1 to {len(names)}, such as 1,2,3: there is no {wrong[0]!r}")
    return [numbered[number] for number in numbers.split(",")]
