"""The command line behind `python -m harness`: composition by Hydra, errors as one clear line."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.config import ConfigError
from harness.config.composition import plain, register, register_brought, settle_paths
from harness.run.checks import validate
from harness.run.names import unknown
from harness.runtime.console import STOPPED, complain
from harness.store.files import Damaged
from harness.sweep.expansion import check_elements
from harness.sweep.tuned import apply

if TYPE_CHECKING:
    from harness.sweep.sweeper import HarnessSweeper

FAILED, MISUSED = 1, 2
VERSION: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}  # 1.4 warns of it


def run(arguments: list[str]) -> int:
    """Compose and run; returns the exit status: 0 done, 1 a run failed, 2 bad input, 130 stopped."""
    from harness.sweep.sweeper import HarnessSweeper

    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print, to become one line here
    command, sys.argv = sys.argv, [*sys.argv[:1], *arguments]
    try:
        with in_one_line():
            sys.argv[1:] = for_hydra(arguments)
            register()
            Plugins.instance().register(HarnessSweeper)
            launch()
    except ConfigError as error:
        if before == "1":
            raise
        complain(error)
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


def sweep_by(sweeper: type[HarnessSweeper], arguments: list[str]) -> int:
    """A sweep by a sweeper of a command's own; returns the exit status, as `run`."""
    from harness.sweep.sweeper import target_of

    Plugins.instance().register(sweeper)
    return run(["-m", target_of(sweeper), *(word for word in arguments if word not in ("-m", "--multirun"))])


@hydra.main(config_path=None, config_name="config", **VERSION)
def launch(composed: DictConfig) -> None:
    """Hydra's task function: one run."""
    from harness.run.single import run_single

    try:
        with in_one_line():
            status = run_single(configure(composed))
    except ConfigError as error:  # Hydra would print a line of its own above it
        complain(error)
        status = MISUSED
    if status:
        sys.exit(status)


def configure(composed: DictConfig) -> dict[str, Any]:
    """What Hydra composed as the configuration of one run. Raises ConfigError, and what OmegaConf raises."""
    config = settle_paths(plain(composed))
    validate(config)
    if config["harness"]["plan"]:
        raise ConfigError("harness.plan=true shows what a sweep would run: add -m (in Python: harness.sweep)")
    return config


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """What Hydra, OmegaConf and the harness refuse, each in a manner of its own, is a ConfigError of one line."""
    try:
        yield
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error
    except (ValueError, TypeError, AttributeError, AssertionError) as error:
        if not raised_by_hydra(error):
            raise
        raise ConfigError(one_line(error)) from error


def raised_by_hydra(error: Exception) -> bool:
    """Whether Hydra gave up on its input in a way that it has no name for."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals["__name__"].startswith(("hydra.", "omegaconf."))


def for_hydra(arguments: list[str]) -> list[str]:
    """The arguments as Hydra reads them: its own flags before the overrides, among which they may stand; and where it
    shows the configuration of a sweep, that of the sweep's first run. Raises ConfigError.
    """
    parser = get_args_parser()
    parser.error = refuse
    known, others = parser.parse_known_intermixed_args(arguments)
    if others:
        refuse(f"unrecognized arguments: {' '.join(other for other in others if other.startswith('-'))}")
    overrides = known.overrides
    parsed = OverridesParser.create().parse_overrides(overrides)
    for override in parsed:
        check_elements(override)
    register_brought(parsed)
    flags = [argument for argument in arguments if argument not in overrides]
    if known.info and flags[-1] in ("--info", "-i"):
        flags.append(known.info)  # else the first override would be what to show
    multirun = known.multirun or "hydra.mode=MULTIRUN" in overrides
    if multirun and (known.cfg or known.info):
        flags = [flag for flag in flags if not "--multirun".startswith(flag[:3]) and flag != "-m"]
        overrides = first_run(overrides)
    return [*flags, *(overrides if multirun else apply(overrides))]


def refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message} (options have no dashes: OPTION=VALUE; --help shows some)")


def first_run(overrides: list[str]) -> list[str]:
    """A sweep's overrides as those of its first run."""
    first = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            first.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        elif override.key_or_group != "hydra.mode":
            first.append(override.input_line)
    return first


def one_line(error: Exception) -> str:
    """What is wrong and what to do: the error's first line, and, for Hydra's own, its cause's where that says more."""
    text = str(error).strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines()]
    if isinstance(error, OverrideParseException):
        return unreadable(error.override, lines[lines[0].startswith("Error parsing override")])
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return unknown(group, name, error.options)
    if found := re.match("(?:Ambiguous value for argument|Sweep parameters) '(.*)'", lines[0]):
        key, _, value = found[1].partition("=")
        as_list = "" if "(" in value else f"as a list, {shlex.quote(f'{key}=[{value}]')}, or "
        return (
            f"{found[1]} names several values, and this is one run: add -m to run each, or give {key} {as_list}as one "
            f"text, {in_quotes(found[1])}"
        )
    if found := re.match("Sweeping over Hydra's configuration is not supported : '(.*)'", lines[0]):
        return (
            f"{found[1]} names several values, and hydra's options have one for a whole sweep: one with a comma in it is "
            f"written in quotes, {in_quotes(found[1])}; what jobs of some runs ask for is said in hydra.sweeper.arms"
        )
    said = lines[:2] if lines[0].endswith(":") else lines[:1]
    if isinstance(error, OmegaConfBaseException) and error.full_key and error.full_key not in said[0]:
        said.insert(0, error.full_key)
    if not isinstance(error, ConfigError) and error.__cause__ is not None and str(error.__cause__).strip():
        cause = str(error.__cause__).strip().splitlines()[0]
        if cause not in said[0]:
            said.append(cause)
    if found := re.match(r"Error merging override (\S+)=$", said[0].removesuffix(":")):
        said.append(f"an unquoted ${{...}} is the shell's, so quote it: '{found[1]}=${{...}}'")
    return ": ".join(line.rstrip(".: ") for line in said)


def unreadable(override: str, reason: str) -> str:
    """What to do about an argument that Hydra's grammar does not know."""
    _, equals, value = override.partition("=")
    if not equals or value.endswith(","):
        return (
            f"{override!r} is no OPTION=VALUE: a list is written without blanks, as in seed=0,1, or all of it in quotes, "
            "as in 'seed=0, 1'"
        )
    why = "" if reason.startswith("LexerNoViableAlt") else f" ({reason})"
    return f"{override!r} cannot be read{why}: a value with such signs is written in quotes, {in_quotes(override)}"


def in_quotes(override: str) -> str:
    """An override whose value is one text, whatever is in it, as it is typed in a shell."""
    key, _, value = override.partition("=")
    return shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
