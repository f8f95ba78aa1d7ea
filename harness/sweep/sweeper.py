"""Hydra's sweeper for this harness: expands a sweep, plans it, hands it to a launcher, and sums it up.

Hydra's own sweeper hands every job to the launcher at once and gives up at the first that fails. This one knows what
is done, trains teachers before students, and lets no run take another with it.
"""

from __future__ import annotations

import functools
import shlex
import sys
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from harness.config import ConfigError
from harness.config.composition import settle_paths
from harness.jobs.backend import Shape
from harness.run.checks import validate
from harness.sweep.composer import Composer
from harness.sweep.expansion import expand, is_hydras
from harness.sweep.shapes import compose_shape, is_shape
from harness.sweep.sweep import Sweep


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
        configs, jobs, shapes = self.compose(arguments)
        status = Sweep(configs, jobs, shapes, self.context, self.config, self.task_function).run()
        if status:
            sys.exit(status)

    def compose(self, arguments: list[str]) -> tuple[list[dict[str, Any]], list[tuple[str, ...]], list[Shape]]:
        """Every run's configuration, its overrides, and what its job asks of a cluster. Raises ConfigError."""
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
        return configs, jobs, shapes


# Hydra 1.3 loads sweepers from under hydra_plugins only. A real namespace package there would not be found in a
# checkout or an editable install, so this module answers to that name too.
sys.modules["hydra_plugins.harness"] = sys.modules[__name__]
HarnessSweeper.__module__ = "hydra_plugins.harness"
