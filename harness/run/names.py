"""The names that may follow `method=`, `data=`, `train=` and `model=`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import methods
from harness.config import ConfigError, brought
from harness.config.options import TRAIN


def names(kind: str) -> list[str]:
    """What may follow `method=`, `data=`, `train=` or (as examples, the family being open) `model=`."""
    if kind == "method":
        return [*methods.groups()["all"], *methods.groups()["baselines"], *methods.groups()]
    if kind == "model":
        from harness.training.networks import EXAMPLES

        return [*EXAMPLES, *brought.short_names("model")]
    return brought.data_names() if kind == "data" else list(TRAIN)


def check_name(kind: str, name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise ConfigError with the nearest name for one that is not known, and for options that what is brought by the name
    does not take.
    """
    if kind == "model":
        from harness.training.networks import check

        try:
            check(name, options)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{error}{nearest(name, names(kind))}") from error
    elif kind == "data" and brought.target("data", name):
        brought.check_call("data", name, options or {}, None)
    elif options:
        raise ConfigError(f"{kind}={name} has no options, so none by the name of {', '.join(options)}")
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
