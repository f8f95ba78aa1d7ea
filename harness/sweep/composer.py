"""The configurations of many runs, as Hydra composes them one by one."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, ValueNode
from omegaconf.errors import OmegaConfBaseException

from harness.config.composition import plain, settle_paths
from harness.jobs.backend import Shape
from harness.sweep.expansion import Job, Literal
from harness.sweep.hydra_options import check_shared, shared_options
from harness.sweep.interpolations import ANYTHING, interpolations, overlap, reads, texts_in

Config = dict[str, Any]
SETTLED = ("runs", "bank", "data.root")  # folders are more than what is given, see settle_paths
SOURCES = 64  # choices of groups whose composition is kept


@dataclass(frozen=True)
class Composed:
    """A run's configuration, and what its job asks of a cluster. Runs share what is equal in them: nothing changes it."""

    config: Config
    shape: Shape


@dataclass(frozen=True)
class Split:
    """Which of a run's overrides, by position, Hydra composes, and which are set on a copy of that, by what of a
    configuration they are in. `groups`: those overrides that choose the sources.
    """

    groups: Job
    rest: tuple[int, ...]
    parts: dict[str, tuple[int, ...]]


class Composer:
    """Configurations of runs. Hydra composes each set of overrides that can bear on one another; of the others, which
    set an option that nothing else reads or touches, it is told only where their value does not fit.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, literals: dict[str, Literal]):
        self.loader, self.master = loader, master
        given = OmegaConf.to_container(master.hydra.overrides.hydra, resolve=False)
        self.searched = [text for text in given if text.startswith("hydra.searchpath=")]
        self.parse = functools.cache(OverridesParser.create(config_loader=loader).parse_override)
        self.is_group = functools.cache(self._is_group)
        self.literals = {text: literal for text, literal in literals.items() if not self.is_group(literal.key)}
        self.sources = functools.lru_cache(SOURCES)(self._sources)
        self.splits: dict[Job, Split | None] = {}
        self.bases: dict[Job, Composed] = {}
        self.parts: dict[tuple[Job, Job], Any] = {}
        self.shapes: dict[str, Shape] = {}  # equal ones are the same
        with resolving(master):
            self.shared = shared_options(master)

    def compose(self, job: Job, number: int) -> Composed:
        """The run of some overrides, the sweep's number `number`. Raises what Hydra raises."""
        kind = tuple(self.literals[text].key if text in self.literals else text for text in job)
        if kind not in self.splits:
            self.splits[kind] = self.split(job)
        split = self.splits[kind]
        if split is None:
            return self.compose_by_hydra(job, number)
        rest = tuple(job[position] for position in split.rest)
        try:
            if rest not in self.bases:
                self.bases[rest] = self.compose_by_hydra(rest)
            base = self.bases[rest]
            config = dict(base.config)
            for name, positions in split.parts.items():
                part = rest, tuple(job[position] for position in positions)
                if part not in self.parts:
                    self.parts[part] = self.set_part(base.config[name], part[1], split.groups)
                config[name] = self.parts[part]
        except (HydraException, OmegaConfBaseException):
            if not split.parts:
                raise
            # Either the run is at fault, and Hydra says it in its own words, or what is missing comes from a literal.
            self.splits[kind] = None
            return self.compose_by_hydra(job, number)
        return Composed(config, base.shape)

    def split(self, job: Job) -> Split | None:
        """How runs of this kind are composed; None: each by itself."""
        others = [self.parse(text) for text in job if text not in self.literals]
        # As Hydra does: a dict is merged into a group's options, anything else chooses of the group.
        values = [o for o in others if not self.is_group(o.key_or_group) or isinstance(o.value(), dict)]
        groups = tuple(text for text in job if text not in self.literals and self.parse(text) not in values)
        sources, read = self.sources(groups)
        touched = {*SETTLED, *read, *reads(text for o in values for text in texts_in(o.value()))}
        touched |= {o.key_or_group.partition("[")[0] for o in values}
        if ANYTHING in touched:
            return None
        parts: dict[str, tuple[int, ...]] = {}
        for position, text in enumerate(job):
            key = self.literals[text].key if text in self.literals else ANYTHING
            if not any(overlap(key, other) for other in touched) and leaf(sources, key) is not None:
                name = key.partition(".")[0]
                parts[name] = (*parts.get(name, ()), position)
        short = {position for positions in parts.values() for position in positions}
        return Split(groups, tuple(position for position in range(len(job)) if position not in short), parts)

    def set_part(self, part: Any, texts: Job, groups: Job) -> Any:
        """A part of a configuration after literals, whose values become of their options' types, which the sources know."""
        sources, _ = self.sources(groups)
        for text in texts:
            literal = self.literals[text]
            part = put(part, literal.key.split(".")[1:], leaf(sources, literal.key).validate_and_convert(literal.value))
        return part

    def compose_by_hydra(self, job: Job, number: int | None = None) -> Composed:
        composed = self.loader.load_sweep_config(self.master, list(job))
        if number is not None:
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        with resolving(composed):
            check_shared(self.shared, composed, job)
            shape = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
            shape = self.shapes.setdefault(json.dumps(shape, default=str), shape)
            return Composed(settle_paths(plain(composed)), shape)

    def _sources(self, groups: Job) -> tuple[DictConfig, set[str]]:
        """What groups and files say before any value is set, and what their interpolations read."""
        sources = self.loader.load_sweep_config(self.master, list(groups))
        return sources, reads(interpolations(sources))

    def _is_group(self, key: str) -> bool:
        return bool(self.loader.get_group_options(key, None, self.master.hydra.job.config_name, self.searched))


@contextmanager
def resolving(composed: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` mean this configuration, as in a job of Hydra's."""
    hydra = HydraConfig.instance()
    before, hydra.cfg = hydra.cfg, None
    hydra.set_config(composed)
    try:
        yield
    finally:
        hydra.cfg = before


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


def put(part: Any, path: list[str], value: Any) -> Any:
    """A part of a configuration with another value in one place; the rest of it is shared."""
    return {**part, path[0]: put(part.get(path[0]), path[1:], value)} if path else value


Outline = tuple[tuple[str, ...], tuple[int, ...]]


def outline(config: Config) -> Outline:
    """What is the same for two runs of a sweep whose configurations share all but the seed; only while both are kept."""
    return tuple(config), tuple(id(part) for name, part in config.items() if name != "seed")
