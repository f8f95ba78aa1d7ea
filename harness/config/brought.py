"""What researchers bring of their own: a function, named MODULE:FUNCTION, or by the short name that a package gives it.

    model=mynets:wide                        `wide` in mynets.py of the current folder, or of any package
    data=lesions                             an entry point `lesions` in the group harness.data of an installed package

What a network's function takes and gives is said in training/networks/brought.py, a data set's in training/data/brought.py;
variants are entry points in harness.methods (see methods/__init__.py).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import methods
from harness.config import ConfigError
from harness.config.options import DATA, FOLDERS, Data

GROUPS = {"model": "harness.networks", "data": "harness.data"}


@functools.cache
def short_names(kind: str) -> dict[str, str]:
    """What installed packages bring, by short name: MODULE:FUNCTION. The harness's own names come first, always."""
    found = {point.name: point.value for point in entry_points(group=GROUPS[kind])}
    return {name: found[name] for name in sorted(found) if kind != "data" or name not in DATA}


def target(kind: str, name: str) -> str | None:
    """MODULE:FUNCTION of what `model=NAME` or `data=NAME` brings; None for names that are not brought."""
    return name if ":" in name else short_names(kind).get(name)


@functools.cache
def load(kind: str, name: str) -> Callable[..., Any]:
    """The function that a name brings. Raises ConfigError where there is none."""
    place = target(kind, name)
    module, _, function = place.partition(":")
    if not EntryPoint.pattern.fullmatch(place) or not function:
        raise ConfigError(f"{kind}={name} names no function as MODULE:FUNCTION")
    try:
        found = EntryPoint(name, place, GROUPS[kind]).load()
    except ModuleNotFoundError as error:
        where = "the current folder, PYTHONPATH and installed packages"
        raise ConfigError(f"{kind}={name}: no module named {error.name!r} in {where}") from error
    except AttributeError as error:
        raise ConfigError(f"{kind}={name}: {module} has no {function!r} ({error})") from error
    except (Exception, SystemExit) as error:  # whatever somebody's module does where it is imported
        raise ConfigError(f"{kind}={name}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{kind}={name}: {place} is no function but {type(found).__name__}")
    return found


def check_call(kind: str, name: str, options: Mapping[str, Any], *arguments: Any) -> None:
    """Raise ConfigError where a brought function does not take these arguments, with these options by name."""
    function = load(kind, name)
    try:
        signature = inspect.signature(function)
    except ValueError:  # compiled functions need not have one
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{kind}={name}{signature}: {error}") from error


def data_options(name: str) -> Data:
    """The options of `data=NAME` with their defaults. Raises KeyError for a name that means no data set."""
    return Data(name, padding=4) if target("data", name) else DATA[name]


def may_change(name: str) -> bool:
    """Whether the images of a data set are anybody's; published sets are verified where they are read."""
    return name in FOLDERS or target("data", name) is not None


def data_names() -> list[str]:
    """Data sets that have a name: the harness's own, then those that installed packages bring."""
    return [*DATA, *short_names("data")]


def modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modules of other packages that decide a run's result, for the hash of its code: its method's, its networks', its
    data set's.
    """
    named = [target("model", name) for name in (config["model"], config["teachers"].get("model")) if name]
    named += [target("data", config["data"]["name"]), methods.target(config["method"]["name"])]
    found = {place.partition(":")[0] for place in named if place}
    return tuple(sorted(module for module in found if module.partition(".")[0] != "methods"))
