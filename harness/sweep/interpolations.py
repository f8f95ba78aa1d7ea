"""What interpolations read: which options change with others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from omegaconf import DictConfig, ListConfig, OmegaConf

ANYTHING = ""  # as a key: everything lies below it
KEY = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
# An option by its whole name, or what is the same for all runs of a sweep. Whatever else there is (relative and nested
# names, other resolvers) may read anything.
KNOWN = re.compile(rf"\$\{{(?:({KEY})|(?:now|oc\.env):[^{{}}$]*)\}}")
# Of Hydra's own configuration: what only texts are made of, and what changes with any override.
TEXTS = ("hydra.help", "hydra.hydra_help", "hydra.job_logging", "hydra.hydra_logging")
CHANGING = ("hydra.overrides", "hydra.job.override_dirname", "hydra.job.num", "hydra.job.id")


def moving(texts: dict[str, str], options: Iterable[str]) -> set[str]:
    """The interpolations, each by the option that it is the value of, that may change with some options."""
    moved, still = set(options), {key: reads(text) for key, text in texts.items()}
    found: set[str] = set()
    while more := {key for key, read in still.items() if any(overlap(one, other) for one in read for other in moved)}:
        moved |= more
        found |= more
        still = {key: read for key, read in still.items() if key not in more}
    return found


def reads(text: str) -> set[str]:
    """The options that a text's interpolations name; ANYTHING where that cannot be told."""
    found = {key for key in KNOWN.findall(text) if key}
    return found | ({ANYTHING} if "${" in KNOWN.sub("", text) else set())


def is_of_one_job(text: str) -> bool:
    """Whether interpolations in a text read, or may read, what Hydra changes with any override."""
    if "${" in KNOWN.sub("", text):
        return "hydra" in text or text.count("${") > 1
    return any(overlap(key, changing) for key in reads(text) for changing in CHANGING)


def overlap(one: str, other: str) -> bool:
    """Whether two options are the same, or one holds the other."""
    return one == other or ANYTHING in (one, other) or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def interpolations(node: DictConfig | ListConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every interpolation below a node of a composed configuration, unresolved, with its option."""
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        name = f"{prefix}{key}"
        child = node._get_node(key)
        if name in TEXTS:
            continue
        if child._is_interpolation():
            yield name, child._value()
        elif OmegaConf.is_config(child) and not child._is_none() and not child._is_missing():
            yield from interpolations(child, f"{name}.")
