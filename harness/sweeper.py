"""Hydra's sweeper for this harness: expands a sweep, plans it, hands it to a launcher, and sums it up.

Hydra's own sweeper hands every job to the launcher at once and gives up at the first that fails. This one knows what
is done, trains teachers before students, and lets no run take another with it.
"""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import re
import shlex
import sys
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import methods
from harness.app import plain
from harness.cluster import Shape
from harness.config import ConfigError, check_name, settle_paths, validate
from harness.sweep import Sweep

Config = dict[str, Any]


class HarnessSweeper(Sweeper):
    """What a preset sweeps over; the command line's overrides win.

    `params` are overrides, as with Hydra's basic sweeper. `arms` are alternatives that are no product of lists, each
    some overrides in one string ("method=combined method.student_term=false"); everything else is run with each arm.
    An arm's jobs may ask for more than others: "model=wrn28_4 hydra.launcher.mem_gb=16".
    """

    def __init__(self, params: dict[str, Any] | None = None, arms: list[str] | None = None):
        self.params, self.arms = dict(params or {}), list(arms or [""])

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        common = [f"{key}={value}" for key, value in self.params.items()] + arguments
        found = []
        for arm in self.arms:
            own = parser.parse_overrides(shlex.split(arm))
            if refused := [override.input_line for override in own if is_hydras(override)]:
                raise ConfigError(f"{refused[0]}: of Hydra's options an arm can only have those of hydra.launcher.")
            found += expand([*own, *parser.parse_overrides(common)])
        if not found:
            raise ConfigError("the sweep is empty: an option's list or pattern matches nothing")
        composer = Composer(self.context, self.config, parser)
        shape = functools.cache(functools.partial(compose_shape, self.config.hydra.launcher, parser))
        jobs, shapes = [], []
        for job in dict.fromkeys(found):
            jobs.append(tuple(override for override in job if not is_shape(override)))
            shapes.append(shape(tuple(filter(is_shape, job))))
        configs = [settle_paths(composer.compose(job)) for job in jobs]
        for config in configs:
            validate(config)
        status = Sweep(configs, jobs, shapes, self.context, self.config, self.task_function).run()
        if status:
            sys.exit(status)


# Hydra 1.3 loads sweepers from under hydra_plugins only. A real namespace package there would not be found in a
# checkout or an editable install, so this module answers to that name too.
sys.modules["hydra_plugins.harness"] = sys.modules[__name__]
HarnessSweeper.__module__ = "hydra_plugins.harness"


def expand(overrides: list[Override]) -> list[tuple[str, ...]]:
    """Every combination of the overrides' values; a later override of a key replaces an earlier one."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        if is_hydras(override):
            continue  # it shapes the sweep, not its runs
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(f"{override.input_line}: only lists, ranges and patterns can be swept over")
            found = list(override.sweep_string_iterator())
        else:
            found = [override.get_value_element_as_str()]
        if override.key_or_group == "method":
            found = expand_groups(found)
        elif override.key_or_group in ("data", "train", "model") and override.is_sweep_override():
            for name in found:
                check_name(override.key_or_group, name)
        values[key] = [f"{key}={value}" if override.type != OverrideType.DEL else key for value in found]
    return list(itertools.product(*values.values()))


def is_hydras(override: Override) -> bool:
    """Whether an override is Hydra's own and the same for every run."""
    return re.match(r"hydra[./]", override.key_or_group) is not None and not is_shape(override.key_or_group)


def is_shape(override: str) -> bool:
    """Whether an override is about a run's job, not about the run."""
    return override.lstrip("+~").startswith("hydra.launcher.")


def compose_shape(launcher: DictConfig, parser: OverridesParser, overrides: tuple[str, ...]) -> Shape:
    """What jobs ask of the cluster, with some overrides of `hydra.launcher`. Raises ConfigError for unknown options."""
    shape = copy.deepcopy(launcher)
    for override in parser.parse_overrides(list(overrides)):
        key = override.key_or_group.removeprefix("hydra.launcher.")
        if override.is_delete():
            OmegaConf.set_struct(shape, False)
            shape.pop(key, None)
            continue
        try:
            OmegaConf.update(shape, key, override.value(), force_add=override.is_add() or override.is_force_add())
        except OmegaConfBaseException as error:
            raise ConfigError(f"{override.input_line}: {str(error).splitlines()[0]}") from error
    return OmegaConf.to_container(shape, resolve=True)


def expand_groups(names: list[str]) -> list[str]:
    """Method names with `all` and `baselines` replaced by what they stand for, each name once."""
    groups = methods.groups()
    expanded = dict.fromkeys(name for given in names for name in groups.get(given, [given]))
    for name in expanded:
        check_name("method", name)
    return list(expanded)


class Composer:
    """Configurations of many runs. Hydra composes each choice of groups once; plain values are set on a copy."""

    def __init__(self, context: HydraContext, config: DictConfig, parser: OverridesParser):
        self.loader = context.config_loader
        self.name = config.hydra.job.config_name
        self.bases: dict[tuple[str, ...], tuple[DictConfig, bytes]] = {}
        self.parse = functools.cache(parser.parse_override)
        self.is_group = functools.cache(lambda key: bool(self.loader.get_group_options(key)))
        self.convert = functools.cache(self._convert)

    def compose(self, job: tuple[str, ...]) -> Config:
        choices = tuple(override for override in job if not self.is_value(override))
        if choices not in self.bases:
            composed = self.loader.load_configuration(self.name, list(choices), RunMode.RUN, from_shell=False)
            self.bases[choices] = composed, pickle.dumps(plain(composed))
        config = pickle.loads(self.bases[choices][1])
        for override in filter(self.is_value, job):
            *groups, key = self.parse(override).key_or_group.split(".")
            node = config
            for group in groups:
                node = node[group]
            node[key] = pickle.loads(self.convert(choices, override))
        return config

    def is_value(self, override: str) -> bool:
        """Whether an override sets one option, and so leaves the rest as it is."""
        parsed = self.parse(override)
        return parsed.type == OverrideType.CHANGE and parsed.package is None and not self.is_group(parsed.key_or_group)

    def _convert(self, choices: tuple[str, ...], override: str) -> bytes:
        """A plain override's value, converted to its option's type by OmegaConf, pickled for copies.

        Raises ConfigError where there is no such option or the value does not fit.
        """
        scratch, parsed = self.bases[choices][0], self.parse(override)
        key = parsed.key_or_group
        try:
            OmegaConf.update(scratch, key, parsed.value())
            value = OmegaConf.select(scratch, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{override}: {str(error).splitlines()[0]}") from error
        return pickle.dumps(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
