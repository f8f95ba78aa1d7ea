"""Hydra's own options in a sweep: which are kept, which are one for all of its runs, what to use instead of others."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from harness.config import ConfigError
from harness.sweep.expansion import Job

RECORDED = "every run's record.json has its whole configuration, its run.log what it said"
# What Hydra does around a job that it runs itself: the option, as it has to be, and what to use instead.
UNUSED = {
    "sweep": ({"dir": "${runs}", "subdir": "."}, "runs name their own folders below runs=FOLDER"),
    "job.chdir": (False, "runs do not change folder: give absolute paths"),
    "output_subdir": (None, RECORDED),
    "verbose": (False, RECORDED),
    "runtime.choices.hydra/job_logging": ("none", RECORDED),
    "runtime.choices.hydra/hydra_logging": ("none", RECORDED),
}
# A run may have a `hydra.launcher` of its own (see shapes.py); these it may not.
SHARED = ("sweeper", "callbacks", "mode", "job.env_set", *UNUSED)


def shared_options(composed: DictConfig) -> dict[str, Any]:
    """What of Hydra's options is one for a whole sweep."""
    return {name: contained(composed, name, resolve=name != "sweep") for name in SHARED}


def check_shared(wanted: dict[str, Any], composed: DictConfig, job: Job) -> None:
    """Raise ConfigError where a run's overrides change what is one for the whole sweep."""
    for name, found in shared_options(composed).items():
        if found != wanted[name]:
            raise ConfigError(
                f"{spoken(name)} is one for a whole sweep, and {' '.join(job)} would change it: give it on the command "
                "line, or run one command for each of what changes it"
            )


def check_used(composed: DictConfig, context: HydraContext) -> None:
    """Raise ConfigError for options of Hydra's jobs, where runs are no jobs of Hydra's: with every launcher that the
    harness drives itself.
    """
    for name, (kept, instead) in UNUSED.items():
        if contained(composed, name, resolve=False) != kept:
            raise ConfigError(f"{spoken(name)} has no use in a sweep: {instead}")
    for callback in context.callbacks.callbacks:
        for hook in ("on_job_start", "on_job_end"):
            if getattr(type(callback), hook, None) not in (None, getattr(Callback, hook)):
                raise ConfigError(
                    f"hydra.callbacks: {type(callback).__name__}.{hook} is not called in a sweep, whose runs are no jobs of "
                    "Hydra's: on_multirun_end is, and finds each run's record.json; or run it without -m"
                )


def contained(composed: DictConfig, name: str, resolve: bool) -> Any:
    node = composed.hydra
    for key in name.split("."):
        node = node[key]
    return OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node


def spoken(name: str) -> str:
    """An option of Hydra's by the name that people give it."""
    return f"hydra.{name}".removeprefix("hydra.runtime.choices.")
