"""Hydra's sweeper for this harness: expands a sweep, plans it, hands it to a launcher, and sums it up.

Hydra's own sweeper hands every job to the launcher at once and gives up at the first that fails. This one knows what
is done, trains teachers before students, and lets no run take another with it.
"""

from __future__ import annotations

import functools
import shlex
import sys
from datetime import datetime
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from harness.config import ConfigError
from harness.config.composition import register_brought
from harness.jobs.backend import Shape
from harness.run.checks import check_seed, validate
from harness.sweep.composer import Composed, Composer, outline
from harness.sweep.expansion import Expansion, Job, to_override
from harness.sweep.sweep import Sweep
from harness.sweep.tuned import apply, read_tuned

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

    def sweep(self, arguments: list[str]) -> Any:
        if status := self.prepare(arguments).run():
            sys.exit(status)

    def prepare(self, arguments: list[str]) -> Sweep:
        return Sweep(*self.compose(arguments), self.context, self.config, self.task_function)

    def compose(self, arguments: list[str]) -> tuple[list[Config], list[Job], list[Shape]]:
        """Every run's configuration, its overrides, and what its job asks of a cluster. Raises ConfigError."""
        runs = self.compose_runs(arguments)
        if not runs:
            raise ConfigError("the sweep is empty: an option's list or pattern matches nothing")
        configs = [run.config for run in runs.values()]
        for config in {outline(config): config for config in configs}.values():
            validate(config)
        for config in configs:
            check_seed(config)
        check_same(configs)
        return configs, list(runs), [run.shape for run in runs.values()]

    def compose_runs(self, arguments: list[str]) -> dict[Job, Composed]:
        """Every run as Hydra composes it, by its overrides."""
        # What belongs to a sweep is the same for its runs: that it is now, too.
        OmegaConf.register_new_resolver("now", datetime.now().strftime, use_cache=True, replace=True)
        OmegaConf.clear_cache(self.config)
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        expansion = Expansion(parser)
        params = parser.parse_overrides([to_override(key, value) for key, value in self.params.items()])
        given = parser.parse_overrides(arguments)
        register_brought(params)
        jobs: dict[Job, None] = {}
        for arm in self.arms:
            try:
                own = parser.parse_overrides(shlex.split(arm))
            except ValueError as error:
                raise ConfigError(f"hydra.sweeper.arms: {arm}: {error}") from error
            register_brought(own)
            check_jobs_own([*own, *params])
            jobs |= dict.fromkeys(self.amended(expansion.expand([*own, *params, *given])))
        composer = Composer(self.context.config_loader, self.config, expansion.literals)
        return {job: composer.compose(job, number) for number, job in enumerate(jobs)}

    @staticmethod
    def amended(jobs: list[Job]) -> list[Job]:
        """Jobs with what was tuned for them."""
        tuned = any(text.startswith("tuned=") for text in (jobs[0] if jobs else ()))
        read = functools.cache(read_tuned)  # once, for all of them
        return [apply(job, read) for job in jobs] if tuned else jobs


def target_of(sweeper: type[HarnessSweeper]) -> str:
    """The override by which Hydra sweeps with it, once it is registered."""
    return f"hydra.sweeper._target_={sweeper.__module__}.{sweeper.__name__}"


def check_jobs_own(overrides: list[Override]) -> None:
    """Refuse what is Hydra's own in a sweep's params and arms, but for what a run's job asks of the cluster."""
    for override in overrides:
        if override.is_hydra_override() and not override.key_or_group.startswith("hydra.launcher."):
            raise ConfigError(
                f"{override.input_line}: of Hydra's options, hydra.sweeper's params and arms can only have those of "
                "hydra.launcher; give others on the command line, or below `hydra:` in the file"
            )


def check_same(configs: list[Config]) -> None:
    """Refuse different values, in one sweep, of what is not its runs' but its own."""
    for key in ("runs", "bank", "fail_fast", "harness", "sweep"):
        first = configs[0][key]
        for config in configs:
            if config[key] is not first and config[key] != first:
                text = f"'{key}=\"{first},{config[key]}\"'" if key in ("runs", "bank") else ""
                raise ConfigError(
                    f"{key} is one for a whole sweep, and here it is {first} for one run and {config[key]} for another: "
                    f"give one value{', in quotes if it has a comma: ' + text if text else ''}"
                )


# Hydra 1.3 loads sweepers from under hydra_plugins only. A real namespace package there would not be found in a
# checkout or an editable install, so this module answers to that name too.
sys.modules["hydra_plugins.harness"] = sys.modules[__name__]
HarnessSweeper.__module__ = "hydra_plugins.harness"
