"""A run that Hydra composed, and those that differ from it in the values of a few options."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ValueNode

from harness.config.composition import contents, settle_paths
from harness.jobs.backend import Shape
from harness.sweep.expansion import Literal
from harness.sweep.interpolations import interpolations, is_of_one_job, moving

Config = dict[str, Any]


@dataclass(frozen=True)
class Composed:
    """A run's configuration, and what its job asks of a cluster. Runs share what is equal in them: nothing changes it."""

    config: Config
    shape: Shape


class Base:
    """`run` is what Hydra's `composed` comes to, of which `ours` is the part without Hydra's own. In other runs `options`,
    those given that are values of their own, have other values: where something reads them, they are set in both, and
    OmegaConf resolves it anew.
    """

    def __init__(self, composed: DictConfig, ours: DictConfig, run: Composed, options: tuple[str, ...]):
        found = {option: node for option in options if (node := leaf(ours, option)) is not None}
        self.run, self.options, nodes = run, tuple(found), list(found.values())
        texts = dict(interpolations(composed))
        # Whether other runs follow from it; else each is Hydra's to compose.
        self.holds = not any(map(is_of_one_job, texts.values()))
        if not self.holds:
            return
        moved = moving(texts, self.options)
        self.moving = sorted({key.partition(".")[0] for key in moved} - {"hydra"})
        self.hydra_moves = any(key.startswith("hydra.") for key in moved)
        if moved:
            self.composed, self.ours = composed, ours
            self.nodes = [*zip(nodes, (leaf(composed, option) for option in self.options), strict=True)]
        self.types = list(map(alone, nodes))  # what they make of a value
        self.still: dict[str, list[int]] = defaultdict(list)  # of the other options, by what they are in
        for position, option in enumerate(self.options):
            if (name := option.partition(".")[0]) not in self.moving:
                self.still[name].append(position)
        self.parts: dict[Any, Any] = {}  # equal ones are the same

    def vary(self, texts: tuple[str, ...], literals: dict[str, Literal]) -> Config:
        """The configuration with literals, one for each of the options, given by their texts. Raises what OmegaConf does
        where a value does not fit.
        """
        config = dict(self.run.config)
        for name, positions in self.still.items():
            key = name, *(texts[position] for position in positions)
            if key not in self.parts:
                part = config[name]
                for position in positions:
                    value = self.types[position].validate_and_convert(literals[texts[position]].value)
                    part = put(part, self.options[position].split(".")[1:], value)
                self.parts[key] = part
            config[name] = self.parts[key]
        if self.moving or self.hydra_moves:
            for nodes, text in zip(self.nodes, texts, strict=True):
                for node in nodes:
                    node._set_value(literals[text].value)
        if self.moving:
            config |= {name: contents(self.ours[name]) for name in self.moving}
            settle_paths(config)
            for name in self.moving:
                config[name] = self.parts.setdefault((name, json.dumps(config[name])), config[name])
        return config


def leaf(composed: DictConfig, key: str) -> ValueNode | None:
    """An option's node, where it is there, is a value of its own, and lies where its name says."""
    *groups, name = key.split(".")
    node = composed
    for group in groups:
        node = node._get_node(group, validate_access=False)
        if not isinstance(node, DictConfig) or node._is_interpolation() or node._is_none() or node._is_missing():
            return None
    found = node._get_node(name, validate_access=False)
    return found if isinstance(found, ValueNode) else None


def alone(node: ValueNode) -> ValueNode:
    """A copy of a node that does not keep the rest of its configuration."""
    copied = copy.copy(node)
    copied._set_parent(None)
    return copied


def put(part: Any, path: list[str], value: Any) -> Any:
    """A part of a configuration with another value in one place; the rest of it is shared."""
    return {**part, path[0]: put(part.get(path[0]), path[1:], value)} if path else value
