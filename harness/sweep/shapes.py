"""What the job of a run asks of the cluster, where that is not the same for all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import ConfigError
from harness.config.teachers import teacher_configs
from harness.jobs.backend import Shape
from harness.store.identity import run_directory

Config = dict[str, Any]


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


def shapes_of_runs(configs: list[Config], shapes: list[Shape]) -> dict[Path, Shape]:
    """What the job of each run asks for, where that is not the same for all; a teacher asks for what the first
    student does that needs it. Raises ConfigError where a run would be in two shapes.
    """
    found: dict[Path, Shape] = {}
    if all(shape is shapes[0] for shape in shapes):
        return found
    for config, shape in zip(configs, shapes, strict=True):
        directory = run_directory(config)
        earlier = found.setdefault(directory, shape)
        if differs := [key for key in shape if shape[key] != earlier.get(key)]:
            raise ConfigError(
                f"{directory.name} has two values of hydra.launcher.{differs[0]}; say which runs each is for, as in "
                '\'hydra.sweeper.arms=["model=wrn28_4 hydra.launcher.mem_gb=16","model=preresnet20"]\''
            )
    for config, shape in zip(configs, shapes, strict=True):
        for teacher in teacher_configs(config):
            found.setdefault(run_directory(teacher), shape)
    return found
