"""A method's class as options of `method=NAME`, and back."""

from __future__ import annotations

from dataclasses import asdict, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

import methods
from harness.config import ConfigError

if TYPE_CHECKING:
    from methods.method import Method


def method_options(name: str) -> type:
    """The options of `method=name`: its name, then the fields of its class."""
    cls = methods.load(name)
    types = get_type_hints(cls)
    options = [
        (f.name, types[f.name], field(default=f.default, default_factory=f.default_factory)) for f in fields(cls)
    ]
    return make_dataclass(f"{cls.__name__}Options", [("name", str, field(default=name)), *options])


def method_defaults(name: str) -> dict[str, Any]:
    """Every option of a method with its default."""
    return asdict(methods.load(name)())


def build_method(config: dict[str, Any]) -> Method:
    """The Method of a run's configuration. Raises ConfigError where there is none, or an option makes no sense."""
    name = config["method"]["name"]
    try:
        cls = methods.load(name)
    except KeyError:
        raise ConfigError(f"there is no method {name!r} here: what package brought it?") from None
    options = {key: value for key, value in config["method"].items() if key != "name"}
    if unknown := options.keys() - {f.name for f in fields(cls)}:
        raise ConfigError(f"method={name} knows no option {', '.join(sorted(unknown))}")
    try:
        return cls(**options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
