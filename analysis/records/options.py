"""A run's configuration by dotted names: `train.epochs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEEPEST = 16  # levels of a configuration; what is deeper is none, and would exhaust whoever walks through it


def is_deep(value: Any, left: int = DEEPEST) -> bool:
    """Whether there are more levels in a nested value than a configuration has."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return not left or any(is_deep(inner, left - 1) for inner in inside)


def value_at(config: Mapping[str, Any], dotted: str) -> Any:
    """The configuration's value at `train.epochs`; None where there is none."""
    value: Any = config
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 40}} as {"train.epochs": 40}; an empty mapping stays a value."""
    if not isinstance(value, Mapping) or not value:
        return {prefix[:-1]: value}
    return {k: v for name, inner in value.items() for k, v in flatten(inner, f"{prefix}{name}.").items()}


def of_method(config: Mapping[str, Any]) -> dict[str, Any]:
    """The method's own options, by short name."""
    return {name: value for name, value in (config.get("method") or {}).items() if name != "name"}


def as_text(value: Any) -> str:
    """A value as one types it on the command line: texts bare, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
