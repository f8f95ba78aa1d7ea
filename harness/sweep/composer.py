"""The configurations of many runs, as Hydra composes them one by one."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.composition import contents, own_part, settle_paths
from harness.jobs.backend import Shape
from harness.sweep.base import Base, Composed
from harness.sweep.expansion import Job, Literal
from harness.sweep.hydra_options import check_shared, shared_options
from harness.sweep.interpolations import overlap

Config = dict[str, Any]
SETTLED = ("runs", "bank", "data.root")  # folders are more than what is given, see settle_paths


class Composer:
    """Configurations of runs. Of those that differ in literals only Hydra composes the first; in the others, options that
    no other override touches are set to what literals say. Where a value does not fit, Hydra says so.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, literals: dict[str, Literal]):
        self.loader, self.master = loader, master
        given = OmegaConf.to_container(master.hydra.overrides.hydra, resolve=False)
        self.searched = [text for text in given if text.startswith("hydra.searchpath=")]
        self.parse = functools.cache(OverridesParser.create(config_loader=loader).parse_override)
        self.is_group = functools.cache(self._is_group)
        self.literals = {text: literal for text, literal in literals.items() if not self.is_group(literal.key)}
        self.free: dict[Job, tuple[int, ...]] = {}
        self.bases: dict[Job, Base] = {}
        self.shapes: dict[str, Shape] = {}  # equal ones are the same
        with resolving(master):
            self.shared = shared_options(master)

    def compose(self, job: Job, number: int) -> Composed:
        """The run of some overrides, the sweep's number `number`. Raises what Hydra raises."""
        kind = tuple([self.literals[text].key if text in self.literals else text for text in job])
        if kind not in self.free:
            self.free[kind] = self.find_free(job)
        base = self.bases.get(self.frame(job, kind))
        if base is None:
            base = self.compose_by_hydra(job, number, tuple(kind[position] for position in self.free[kind]))
            self.free[kind] = tuple(position for position in self.free[kind] if kind[position] in base.options)
            self.bases[self.frame(job, kind)] = base
            return base.run
        try:
            if base.holds:
                config = base.vary(tuple([job[position] for position in self.free[kind]]), self.literals)
                return Composed(config, self.settle_hydra(base.composed, job) if base.hydra_moves else base.run.shape)
        except (HydraException, OmegaConfBaseException):
            pass  # it is said in Hydra's own words, of this run's overrides
        return self.compose_by_hydra(job, number).run

    def frame(self, job: Job, kind: Job) -> Job:
        """What runs share that differ in free literals only."""
        free = self.free[kind]
        return tuple([kind[position] if position in free else text for position, text in enumerate(job)])

    def find_free(self, job: Job) -> tuple[int, ...]:
        """Which of a run's overrides, by position, are literals of options that no other override touches."""
        others = [self.parse(text) for text in job if text not in self.literals]
        # As Hydra does: a dict is merged into a group's options, anything else chooses of the group.
        values = [o for o in others if not self.is_group(o.key_or_group) or isinstance(o.value(), dict)]
        touched = {*SETTLED, *(o.key_or_group.partition("[")[0] for o in values)}
        keys = {position: self.literals[text].key for position, text in enumerate(job) if text in self.literals}
        return tuple(place for place, key in keys.items() if not any(overlap(key, other) for other in touched))

    def compose_by_hydra(self, job: Job, number: int, options: tuple[str, ...] = ()) -> Base:
        composed = self.loader.load_sweep_config(self.master, list(job))
        composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        with resolving(composed):
            shape = self.settle_hydra(composed, job)
            ours = own_part(composed)
            return Base(composed, ours, Composed(settle_paths(contents(ours)), shape), options)

    def settle_hydra(self, composed: DictConfig, job: Job) -> Shape:
        """What of Hydra's part is a run's own. Raises ConfigError where it is not the sweep's for the rest."""
        check_shared(self.shared, composed, job)
        shape = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
        return self.shapes.setdefault(json.dumps(shape, default=str), shape)

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


Outline = tuple[tuple[str, ...], tuple[int, ...]]


def outline(config: Config) -> Outline:
    """What is the same for two runs of a sweep whose configurations share all but the seed; only while both are kept."""
    return tuple(config), tuple(id(part) for name, part in config.items() if name != "seed")
