"""The names that may follow `method=`, `data=`, `train=` and `model=`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

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
            check(name)
        except ValueError as error:
            raise ConfigError(f"{error}{nearest(name, names(kind))}") from error
    elif name not in names(kind):
        raise ConfigError(unknown(kind, name, names(kind)))


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """What to say of a name that is none of those known."""
    return f"unknown {kind} {name!r}{nearest(name, known)}"


def nearest(name: str, known: Sequence[str]) -> str:
    return f"{guess(name, known) or ';'} known: {', '.join(known)}"


def guess(name: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of a sentence; empty where nothing is near."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
