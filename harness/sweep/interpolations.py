"""What interpolations read: the options whose change would change others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

ANYTHING = ""  # as a key: everything lies below it
KEY = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
# An option by its whole name, or what is the same for all runs of a sweep. Whatever else there is (relative and nested
# names, other resolvers) may read anything.
KNOWN = re.compile(rf"\$\{{(?:({KEY})|(?:now|oc\.env):[^{{}}$]*)\}}")
# Of Hydra's own configuration: what only texts are made of, and what changes with any override.
TEXTS = ("hydra.help", "hydra.hydra_help", "hydra.job_logging", "hydra.hydra_logging")
CHANGING = ("hydra.overrides", "hydra.job.override_dirname", "hydra.job.num", "hydra.job.id")


def reads(texts: Iterable[str]) -> set[str]:
    """The options that interpolations in some texts name; ANYTHING where that cannot be told."""
    found: set[str] = set()
    for text in texts:
        found |= {key for key in KNOWN.findall(text) if key}
        if "${" in KNOWN.sub("", text):
            found.add(ANYTHING)
    return {ANYTHING} if any(overlap(key, changing) for key in found for changing in CHANGING) else found


def overlap(one: str, other: str) -> bool:
    """Whether two options are the same, or one holds the other."""
    return one == other or ANYTHING in (one, other) or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def interpolations(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[str]:
    """Every interpolation below a node of a composed configuration, unresolved."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        name = f"{prefix}{key}"
        child = node._get_node(key)
        if name in TEXTS:
            continue
        if child._is_interpolation():
            yield child._value()
        elif OmegaConf.is_config(child) and not child._is_none() and not child._is_missing():
            yield from interpolations(child, f"{name}.")


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a value of lists and dicts."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, str):
        yield value
