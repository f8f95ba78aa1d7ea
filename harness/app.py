"""The command line behind `python -m harness`: composition by Hydra, errors as one clear line."""

from __future__ import annotations

import os
import re
import sys

import hydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import methods
from harness.config import ConfigError
from harness.config.composition import plain, register, settle_paths
from harness.run.checks import validate
from harness.run.names import check_name
from harness.runtime.console import complain
from harness.store.files import Damaged

FAILED, MISUSED, STOPPED = 1, 2, 130
VERSION = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}  # 1.4 warns of it


def run(arguments: list[str]) -> int:
    """Compose and run; returns the exit status: 0 done, 1 a run failed, 2 bad input, 130 stopped."""
    from harness.sweep.sweeper import HarnessSweeper

    # The one group without fixed keys: Hydra would ask for a plus sign.
    arguments = [re.sub(r"^teachers\.train\.(?=\w+=)", "++teachers.train.", argument) for argument in arguments]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print, to become one line here
    command, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        multirun = bool({"-m", "--multirun"} & set(arguments))
        shown = bool({"--cfg", "-c", "--info", "-i"} & set(arguments))
        check_names(arguments, groups_allowed=multirun or shown)
        if multirun and shown:
            sys.argv[1:] = first_run(arguments)
        register()
        Plugins.instance().register(HarnessSweeper)
        launch()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if before == "1":
            raise
        complain(one_line(error))
        return MISUSED
    except (Damaged, OSError) as error:
        complain(f"{one_line(error)}; what is finished is kept, the same command goes on")
        return FAILED
    except SystemExit as end:
        return int(end.code or 0)
    except KeyboardInterrupt:
        return STOPPED
    finally:
        sys.argv = command
        os.environ.pop("HYDRA_FULL_ERROR") if before is None else os.environ.update(HYDRA_FULL_ERROR=before)
    return 0


@hydra.main(config_path=None, config_name="config", **VERSION)
def launch(composed: DictConfig) -> None:
    """Hydra's task function: one run."""
    from harness.run.single import run_single

    config = settle_paths(plain(composed))
    try:
        validate(config)
        if config["harness"]["plan"]:
            raise ConfigError("harness.plan=true shows what a sweep would run: add -m")
        status = run_single(config)
    except ConfigError as error:  # Hydra would print a line of its own above it
        complain(one_line(error))
        status = MISUSED
    if status:
        sys.exit(status)


def raise_group(name: str) -> None:
    members = ", ".join(methods.groups()[name])
    raise ConfigError(f"method={name} is a group of variants: sweep over it with -m, or choose one of {members}")


def first_run(arguments: list[str]) -> list[str]:
    """A sweep's command line as that of its first run: Hydra shows the configuration of one run only."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser, first = OverridesParser.create(), []
    for argument in arguments:
        if argument in ("-m", "--multirun"):
            continue
        if "=" in argument and not argument.startswith("-"):
            override = parser.parse_override(argument)
            if override.is_sweep_override():
                argument = f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
        first.append(argument)
    return first


def check_names(arguments: list[str], groups_allowed: bool) -> None:
    """Refuse unknown names with the nearest one, before Hydra composes anything."""
    for argument in arguments:
        found = re.fullmatch(r"(method|data|train|model)=([\w,.-]+)", argument)
        if not found:
            continue
        kind, chosen = found[1], found[2].split(",")
        for name in chosen:
            if kind == "method" and name in methods.groups():
                if not groups_allowed:
                    raise_group(name)
            else:
                check_name(kind, name)


def one_line(error: Exception) -> str:
    """The error's first line, and, for Hydra's own, its cause's where that says more."""
    lines = [str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__]
    if not isinstance(error, ConfigError) and error.__cause__ is not None and str(error.__cause__).strip():
        cause = str(error.__cause__).strip().splitlines()[0]
        if cause not in lines[0]:
            lines.append(cause)
    return ": ".join(line.rstrip(".: ") for line in lines)
