"""What the job of a run asks of the cluster, where that is not the same for all."""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.config import ConfigError
from harness.jobs.backend import Shape
from harness.sweep.plan import Plan


def launcher_of(shapes: list[Shape]) -> str:
    """The class of the launcher that all runs of a sweep name. Raises ConfigError where they name several."""
    found = list(dict.fromkeys(shape["_target_"] for shape in shapes))
    if len(found) > 1:
        raise ConfigError(
            f"a sweep has one launcher, and its runs name {' and '.join(found)}: give hydra/launcher on the command line, "
            "or run one command for each"
        )
    return found[0]


def with_environment(shape: Shape, environment: dict[str, str]) -> Shape:
    """A shape whose jobs have these variables, whatever the cluster hands on of the environment of who submits them."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return {**shape, "setup": [*(shape.get("setup") or ()), *exports]} if exports else shape


def shapes_of_runs(plan: Plan, shapes: list[Shape]) -> dict[Path, Shape]:
    """What the job of each run asks for, where that is not the same for all; a teacher asks for what the first
    student does that needs it. `shapes`: of the configurations that were planned. Raises ConfigError where a run would
    be in two shapes.
    """
    found: dict[Path, Shape] = {}
    if all(shape is shapes[0] for shape in shapes):
        return found
    for directory, shape in zip(plan.asked, shapes, strict=True):
        earlier = found.setdefault(directory, shape)
        if differs := [key for key in shape if shape[key] != earlier.get(key)]:
            raise ConfigError(
                f"{directory.name} has two values of hydra.launcher.{differs[0]}; say which runs each is for, as in "
                '\'hydra.sweeper.arms=["model=wrn28_4 hydra.launcher.mem_gb=16","model=preresnet20"]\''
            )
    for directory, shape in zip(plan.asked, shapes, strict=True):
        for teacher in plan.needs[directory]:
            found.setdefault(teacher, shape)
    return found
