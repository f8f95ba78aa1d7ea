"""What a shell completes: the names of options, and the values of those that have names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import methods
from harness.app import VERSION
from harness.config import ConfigError
from harness.config.composition import register
from harness.config.methods import method_options
from harness.config.options import CHOICES, VERIFY, Train
from harness.run.names import names
from harness.store.identity import flatten

SHELLS = ("bash",)
GROUPS = ("method", "data", "train", "model")  # whose names harness.run.names knows
SHOWN = "hydra/launcher=submitit_slurm"  # whose options are those of most jobs


def script(shell: str, commands: list[str]) -> str:
    """What a shell reads to complete `python -m harness`. Raises ConfigError for a shell that is not known."""
    if shell not in SHELLS:
        raise ConfigError(f"--completion is for {' or '.join(SHELLS)}, not {shell!r}")
    pythons = dict.fromkeys(["python", "python3", Path(sys.executable).name])
    said = {"COMMANDS": "\n".join(commands), "OPTIONS": "\n".join(sorted(options())), "PYTHONS": " ".join(pythons)}
    text = resources.files("harness").joinpath(f"completion.{shell}").read_text()
    for name, value in said.items():
        text = text.replace(f"@{name}@", value)
    return text


def options() -> set[str]:
    """`OPTION=` of every option, `OPTION=VALUE` of every value that has a name, and Hydra's flags."""
    register()
    with initialize(config_path=None, job_name="harness", **VERSION):
        composed = compose("config", [SHOWN], return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        launchers = loader.get_group_options("hydra/launcher", None, "config")
        sweeps = loader.get_group_options("sweep")
    plain = OmegaConf.to_container(composed, resolve=False)
    launcher = plain.pop("hydra")["launcher"]
    known: dict[str, Any] = {**flatten(plain), **{f"hydra.launcher.{name}": value for name, value in launcher.items()}}
    every = [name for members in methods.groups().values() for name in members]
    for name in every:
        known |= {f"method.{option}": value for option, value in vars(method_options(name)()).items()}
    found = {f"{key}=" for key in known if not key.endswith((".name", "._target_"))}
    found |= {f"{key}={value}" for key, values in named(known) for value in values}
    groups = {**{group: names(group) for group in GROUPS}, "hydra/launcher": launchers, "+sweep": sweeps}
    found |= {f"{group}={name}" for group, members in groups.items() for name in ["", *members]}
    flags = [flag for action in get_args_parser()._actions for flag in action.option_strings]
    return found | {flag for flag in flags if flag.startswith("--")} | {"--version", "--completion", "-m"}


def named(known: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Options whose values are a few words, and these."""
    types = get_type_hints(Train)
    for key, value in known.items():
        prefix, _, name = key.rpartition(".")
        recipe = prefix in ("train", "teachers.train")
        if isinstance(value, bool) or (recipe and bool in options_of(types[name])):
            yield key, ("true", "false")
        elif recipe and name in CHOICES:
            yield key, tuple("null" if choice is None else choice for choice in CHOICES[name])
    yield "data.verify", VERIFY
    yield "teachers.cache", ("auto", "views", "none")
    yield "teachers.model", tuple(names("model"))
    yield "device", ("auto", "cpu", "cuda")


def options_of(kind: Any) -> tuple[Any, ...]:
    """The types that a type is one of."""
    return tuple(each for each in get_args(kind) if each is not NoneType) if isinstance(kind, UnionType) else (kind,)
