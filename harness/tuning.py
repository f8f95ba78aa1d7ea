"""Options for methods, tried on validation data: which trials a method gets, and which of them is chosen."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from hydra.core.override_parser.types import Transformer
from msgspec import Meta
from omegaconf import OmegaConf

import methods
from harness import streams
from harness.config import ConfigError
from harness.config.methods import build_method, method_defaults
from harness.run.names import check_name
from harness.runtime.console import Console
from harness.store.files import Damaged, check_shape
from harness.store.identity import run_directory
from harness.store.record import settled
from harness.sweep.stage import Stage
from harness.sweep.sweeper import HarnessSweeper
from harness.sweep.tuned import Choice, write_tuned

Config = dict[str, Any]
Options = dict[str, Any]
Records = dict[Path, dict[str, Any]]
FILE = "tuned.yaml"
ENDED = ("done", "diverged")  # what a run came to by itself; one that failed says nothing of its options


class Tune(TypedDict):
    """The block `tune:`."""

    trials: Annotated[int, Meta(ge=1)]
    grids: Annotated[dict[str, dict[str, list[Any]]], Meta(min_length=1)]


class TuneSweeper(HarnessSweeper):
    """Hydra's sweeper of a tuning: its arms are the trials."""

    def sweep(self, arguments: list[str]) -> None:
        trials = make_trials(read_block(self.config))
        texts = {
            " ".join([f"method={name}", *(f"method.{key}={Transformer.str(value)}" for key, value in options.items())])
            for name, several in trials.items()
            for options in several
        }
        self.arms = sorted(texts)
        configs, jobs, shapes = self.compose(arguments)
        check_comparable(configs, trials)
        stage = Stage(configs, jobs, shapes, self.context, self.config, self.task_function)
        status = stage.run()
        if not configs[0]["harness"]["plan"] and not configs[0]["sweep"]["detach"] and status == 0:
            status = choose(configs, trials)
        if status:
            sys.exit(status)


def read_block(config: Any) -> Tune:
    """What is tuned. Raises ConfigError."""
    block = OmegaConf.to_container(config.tune, resolve=True) if OmegaConf.is_config(config.tune) else config.tune
    if block is None:
        raise ConfigError("nothing to tune: the sweep has no block `tune:` (see python -m harness.tune --help)")
    try:
        return check_shape(block, Tune, "tune")
    except Damaged as error:
        raise ConfigError(f"{error}: trials is a number, grids has for each method {{option: [values]}}") from error


def make_trials(block: Tune) -> dict[str, list[Options]]:
    """The trials of every method, as many for each. Raises ConfigError for a method or an option that is none."""
    return {name: trials_of(name, grid, block["trials"]) for name, grid in block["grids"].items()}


def trials_of(name: str, grid: dict[str, list[Any]], count: int) -> list[Options]:
    """`count` points of a method's grid, drawn by a stream of its own where it has more; of an empty one its one point."""
    check_name("method", name)
    if name in methods.groups():
        raise ConfigError(f"tune: {name} is a group of methods: name each of them, with a grid of its own")
    if unknown := grid.keys() - method_defaults(name).keys():
        raise ConfigError(f"tune: method={name} knows no option {', '.join(sorted(unknown))}")
    for key, values in grid.items():
        if twice := [value for value in values if values.count(value) > 1]:
            raise ConfigError(f"tune: the grid of {name} has {key}={twice[0]} twice, and would count it as two trials")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for point in points:
        try:
            build_method({"method": whole(name, point)})
        except TypeError as error:
            raise ConfigError(f"tune: method={name} cannot have {point}: {error}") from error
    if grid and len(points) < count:
        raise ConfigError(
            f"tune: the grid of {name} has {len(points)} points, fewer than the {count} trials of each method"
        )
    if not grid or len(points) == count:
        return points
    drawn = torch.randperm(len(points), generator=streams.generator("tune", name))[:count]
    return [points[i] for i in sorted(drawn.tolist())]


def whole(name: str, options: Options) -> Options:
    """`method` in the configuration of a trial."""
    return {"name": name, **method_defaults(name), **options}


def settings_of(config: Config) -> Config:
    """What all trials have in common."""
    teachers = {key: value for key, value in config["teachers"].items() if key != "set"}
    return {**{key: config[key] for key in ("data", "model", "network", "train")}, "teachers": teachers}


def check_comparable(configs: list[Config], trials: dict[str, list[Options]]) -> None:
    """Raise ConfigError where a mean over a trial's runs would be one over different recipes, or of other methods."""
    if other := {config["method"]["name"] for config in configs} - trials.keys():
        raise ConfigError(
            f"method={', '.join(sorted(other))}: a tuning's methods are those of tune.grids; leave it out"
        )
    if any(settings_of(config) != settings_of(configs[0]) for config in configs):
        raise ConfigError(
            "a tuning sweeps over seed and teachers.set alone, everything else is the same for all trials: tune each of "
            "the others in a folder of its own (runs=FOLDER)"
        )
    found = [config["method"] for config in configs]
    wanted = [whole(name, options) for name, several in trials.items() for options in several]
    if other := [method for method in found if method not in wanted] + [m for m in wanted if m not in found]:
        name, defaults = other[0]["name"], whole(other[0]["name"], {})
        options = ", ".join(f"{key}={value}" for key, value in other[0].items() if value != defaults[key])
        raise ConfigError(
            f"tune.grids and the command line disagree about the trial {name}: {options or 'its defaults'}: leave out method.*; "
            "what is the same for all trials stands in the grid, as its one value"
        )


def choose(configs: list[Config], trials: dict[str, list[Options]]) -> int:
    """Write what was chosen, and say it; returns the exit status: 1 where runs have no outcome yet, or a method none.

    Raises ConfigError where the runs cannot be compared.
    """
    console, chosen = Console(), {}
    records = {directory: settled(directory) for directory in map(run_directory, configs)}
    if missing := [place for place, record in records.items() if record is None or record["status"] not in ENDED]:
        console.say(
            f"{len(missing)} of {len(records)} runs have no outcome ({missing[0].name} ...): nothing is chosen before they do; "
            "the same command runs them again"
        )
        return 1
    check_alike(records)
    for name, several in trials.items():
        scores = {number: score(records, name, options) for number, options in enumerate(several)}
        known = {number: nll for number, nll in scores.items() if nll is not None}
        lost = f"; {len(scores) - len(known)} of them diverged" if len(known) < len(scores) else ""
        if not known:
            console.say(f"{name}: all of {len(scores)} trials diverged: leave it out of tune.grids, or give it others")
            continue
        best = min(known, key=known.get)
        chosen[name] = Choice(options=several[best], trials=len(several), nll=known[best])
        said = ", ".join(f"{key}={value}" for key, value in several[best].items()) or "nothing to tune"
        console.say(f"{name}: {said}: validation nll {known[best]:.4f}, of {len(several)} trials{lost}")
    if len(chosen) < len(trials):
        return 1
    first, file = configs[0], Path(configs[0]["runs"]) / FILE
    settings = settings_of(first)
    settings["teachers"]["set"] = sorted({config["teachers"]["set"] for config in configs})
    write_tuned(file, sorted({config["seed"] for config in configs}), settings, chosen)
    console.say(f"wrote {file}: tuned={file} gives these to the methods of a study, with seeds of its own")
    return 0


def check_alike(records: Records) -> None:
    """Raise ConfigError where trials differ in more than their options: in the code that made them, the data, or what a
    teacher of one name was.
    """
    found: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    for source in (record["provenance"] for record in records.values()):
        taught = {f"weights of {name}": weights for name, weights in (source.get("teacher_weights") or {}).items()}
        for key, value in {"code": source.get("code"), "data": source.get("data"), **taught}.items():
            found[key][value] += 1
    for key, values in found.items():
        del values[None]
        if len(values) > 1:
            told = ", ".join(f"{value[:16]} ({count} runs)" for value, count in values.items())
            raise ConfigError(
                f"these trials are of different {key}: {told}; tune in a folder of its own (runs=FOLDER), or run them all "
                "again by force=true"
            )


def score(records: Records, name: str, options: Options) -> float | None:
    """The mean validation NLL of a trial over its runs; None where one of them diverged."""
    mine = [record for record in records.values() if record["config"]["method"] == whole(name, options)]
    if any(record["status"] != "done" for record in mine):
        return None
    return statistics.fmean(record["metrics"]["student"]["validation"]["nll"] for record in mine)


# Hydra loads sweepers from under hydra_plugins only, as `harness.sweep.sweeper` says.
sys.modules["hydra_plugins.harness_tune"] = sys.modules[__name__]
TuneSweeper.__module__ = "hydra_plugins.harness_tune"
