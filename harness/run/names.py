"""The names that may follow `method=`, `data=`, `train=` and `model=`."""

from __future__ import annotations

import difflib

import methods
from harness.config import ConfigError
from harness.config.options import DATA, TRAIN


def names(kind: str) -> list[str]:
    """What may follow `method=`, `data=`, `train=` or (as examples, the family being open) `model=`."""
    if kind == "method":
        return [*methods.groups()["all"], *methods.groups()["baselines"], *methods.groups()]
    if kind == "model":
        from harness.training.networks import EXAMPLES

        return list(EXAMPLES)
    return list({"data": DATA, "train": TRAIN}[kind])


def check_name(kind: str, name: str) -> None:
    """Raise ConfigError with the nearest name for one that is not known."""
    if kind == "model":
        from harness.training.networks import check

        try:
            return check(name)
        except ValueError as error:
            message = str(error)
    elif name in names(kind):
        return None
    else:
        message = f"unknown {kind} {name!r}"
    near = difflib.get_close_matches(name, names(kind), 1)
    guess = f"; did you mean {near[0]}?" if near else ";"
    raise ConfigError(f"{message}{guess} known: {', '.join(names(kind))}")
