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
    """Which of a run's overrides, by position, are set on a copy of what Hydra composes from the others.

    `groups`: those of its overrides that choose the sources. `short` is None where every run is composed by itself.
    """

    groups: Job
    short: tuple[int, ...] | None


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
        self.splits: dict[Job, Split] = {}
        self.bases: dict[Job, Composed] = {}
        self.values: dict[tuple[Job, str], Any] = {}
        self.shapes: dict[str, Shape] = {}  # equal ones are the same
        with resolving(master):
            self.shared = shared_options(master)

    def compose(self, job: Job, number: int) -> Composed:
        """The run of some overrides, the sweep's number `number`. Raises what Hydra raises."""
        kind = tuple(self.literals[text].key if text in self.literals else text for text in job)
        if kind not in self.splits:
            self.splits[kind] = self.split(job)
        split = self.splits[kind]
        if split.short is None:
            return self.compose_by_hydra(job, number)
        short = [job[position] for position in split.short]
        rest = tuple(text for position, text in enumerate(job) if position not in split.short)
        try:
            if rest not in self.bases:
                self.bases[rest] = self.compose_by_hydra(rest)
            base = self.bases[rest]
            config = base.config
            for text in short:
                config = put(config, self.literals[text].key.split("."), self.value(split.groups, text))
        except (HydraException, OmegaConfBaseException):
            if not short:
                raise
            # Either the run is at fault, and Hydra says it in its own words, or what is missing comes from a literal.
            self.splits[kind] = Split(split.groups, None)
            return self.compose_by_hydra(job, number)
        return Composed(config, base.shape)

    def split(self, job: Job) -> Split:
        others = [self.parse(text) for text in job if text not in self.literals]
        # As Hydra does: a dict is merged into a group's options, anything else chooses of the group.
        values = [o for o in others if not self.is_group(o.key_or_group) or isinstance(o.value(), dict)]
        groups = tuple(o.input_line for o in others if o not in values)
        sources, read = self.sources(groups)
        touched = {*SETTLED, *read, *reads(text for o in values for text in texts_in(o.value()))}
        touched |= {o.key_or_group.partition("[")[0] for o in values}
        if ANYTHING in touched:
            return Split(groups, None)
        short = (
            position
            for position, text in enumerate(job)
            if (literal := self.literals.get(text))
            and not any(overlap(literal.key, key) for key in touched)
            and is_leaf(sources, literal.key)
        )
        return Split(groups, tuple(short))

    def compose_by_hydra(self, job: Job, number: int | None = None) -> Composed:
        composed = self.loader.load_sweep_config(self.master, list(job))
        if number is not None:
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        with resolving(composed):
            check_shared(self.shared, composed, job)
            shape = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
            shape = self.shapes.setdefault(json.dumps(shape, default=str), shape)
            return Composed(settle_paths(plain(composed)), shape)

    def value(self, groups: Job, text: str) -> Any:
        """A literal's value as its option has it: converted to the option's type, which the sources know."""
        if (groups, text) not in self.values:
            literal, (sources, _) = self.literals[text], self.sources(groups)
            OmegaConf.update(sources, literal.key, literal.value)
            self.values[groups, text] = OmegaConf.select(sources, literal.key, throw_on_missing=True)
        return self.values[groups, text]

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


def is_leaf(composed: DictConfig, key: str) -> bool:
    """Whether an option is there, is a value of its own, and lies where its name says."""
    *groups, name = key.split(".")
    node = composed
    for group in groups:
        node = node._get_node(group, validate_access=False)
        if not isinstance(node, DictConfig) or node._is_interpolation() or node._is_none() or node._is_missing():
            return False
    return isinstance(node._get_node(name, validate_access=False), ValueNode)


def put(config: Config, path: list[str], value: Any) -> Config:
    """A configuration with another value in one place; the rest of it is shared."""
    name, *inner = path
    return {**config, name: put(config[name], inner, value) if inner else value}
