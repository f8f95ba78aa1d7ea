"""`harness.run(...)` and `harness.sweep(...)`: the command line from Python, above all from a notebook.

    import analysis, harness
    run = harness.run(method="combined", seed=0, train={"epochs": 5})
    run.metrics["student"]["test"]["acc"], run.history[-1]["loss"], run.network()
    runs = harness.sweep(method="all", seed=range(3), train={"name": "short", "epochs": 5})
    analysis.load(runs.folder)

Options have the names that they have on the command line, and values that are Python's: a text is a text, whatever is in
it. A dict sets options of its name, of a group also which (`name`); `**{"train.epochs": 5}` and the command line's own words,
`"train.epochs=5"`, go as well. In a sweep every list, tuple or range is swept over; one that is a value stands in a list.

What cannot be run is a ConfigError, what goes wrong in a run is what it is. Interrupted, the same call goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path, PurePath
from typing import Any, get_origin, get_type_hints

from hydra import initialize
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from hydra.core.plugins import Plugins
from omegaconf import DictConfig
from torch import nn

from harness.app import VERSION, configure, in_one_line, launch
from harness.config import ConfigError
from harness.config.composition import register, register_brought
from harness.config.options import Config, Data, Train
from harness.run.deployment import load_student
from harness.run.single import make
from harness.runtime.console import STOPPED, Console
from harness.runtime.interruption import Interrupted
from harness.store.history import read_history
from harness.store.identity import run_directory
from harness.sweep.expansion import quoted
from harness.sweep.sweeper import HarnessSweeper, target_of
from harness.sweep.tuned import apply

GROUPS = {"method": str, "data": Data, "train": Train}  # what is chosen by name, and the type of its options


class Run(Mapping[str, Any]):
    """A finished run: its record's fields by name, as in harness/store/record.py, and what else its folder holds."""

    def __init__(self, folder: Path, record: dict[str, Any]):
        self.folder, self.record = folder, record

    def __getitem__(self, field: str) -> Any:
        return self.record[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)

    def __repr__(self) -> str:
        test = self.metrics["student"]["test"]
        return f"<Run {self.folder}: acc {100 * test['acc']:.2f} %, nll {test['nll']:.4f}>"

    @property
    def config(self) -> dict[str, Any]:
        """Every option, nested."""
        return self.record["config"]

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """Of student, teacher and ensemble, on validation and test: acc in [0, 1], nll in nats, brier, ece ..."""
        return self.record["metrics"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """An entry an epoch: epoch, step, loss and its parts, lr, images_per_s, elapsed_s[, validation]. Raises Damaged."""
        return read_history(self.folder)

    def network(self) -> nn.Module:
        """The deployed network, plain torch, evaluating, on the CPU: pixels [B, C, H, W] in [0, 1] to logits [B, K].

        Raises Damaged where its file is not what the run wrote, ConfigError where its data are not there any more.
        """
        return load_student(self.folder, Console())[0]


class Runs(list[Run]):
    """The runs of a sweep that are done, in its order; `missing`: the folders of the others, and why; `folder`: of all."""

    def __init__(self, done: list[Run], missing: dict[Path, str], folder: Path):
        super().__init__(done)
        self.missing, self.folder = missing, folder

    def __repr__(self) -> str:
        return f"<{len(self)} runs done in {self.folder}, {len(self.missing)} missing>"


def run(*overrides: str, **options: Any) -> Run:
    """Train one run, or read it where it is done: `python -m harness`, shown as there.

    Raises ConfigError for what cannot be run, KeyboardInterrupt where it was stopped: the same call then goes on.
    """
    words = [*overrides, *written(options, swept=False)]
    with composing(["harness.run"], words) as hydra:
        found = hydra.run("config", attempt, list(apply(words)), with_log_configuration=False).return_value
    if isinstance(found, Interrupted):
        raise KeyboardInterrupt(f"{found}; the same call goes on from there") from None
    if isinstance(found, Exception):
        raise found
    return found


def sweep(*overrides: str, **options: Any) -> Runs:
    """Run what is missing of a sweep, and read it: `python -m harness -m`, shown as there. A run that fails takes no other
    with it, and is among the `missing`.

    Raises ConfigError for what cannot be run, KeyboardInterrupt where it was stopped: the same call then goes on.
    """
    words = [*overrides, *written(options, swept=True)]
    with composing(["harness.sweep", "-m"], words) as hydra:
        return hydra.multirun("config", launch, [target_of(CellSweeper), *words], with_log_configuration=False)


def attempt(composed: DictConfig) -> Run | Exception:
    """Hydra's task: one run, or what went wrong, of which Hydra would print a line of its own."""
    try:
        with in_one_line():
            config = configure(composed)
            record = make(config, Console())
    except Exception as error:  # noqa: BLE001  raised again behind Hydra
        return error
    return Run(run_directory(config), record)


class CellSweeper(HarnessSweeper):
    """Hydra's sweeper, that returns what it found."""

    def sweep(self, arguments: list[str]) -> Runs:
        made = self.prepare(arguments)
        if made.run() == STOPPED:
            raise KeyboardInterrupt("stopped; the same call goes on from there")
        results = made.results()
        done = [Run(place, record) for place, record in results.records.items()]
        return Runs(done, results.missing, made.folder)


# Hydra loads sweepers from under hydra_plugins only, as `harness.sweep.sweeper` says.
sys.modules["hydra_plugins.harness_notebook"] = sys.modules[__name__]
CellSweeper.__module__ = "hydra_plugins.harness_notebook"


@contextmanager
def composing(command: list[str], words: list[str]) -> Iterator[Hydra]:
    """Hydra, as the command line has it, for these overrides; records name both as such. Raises ConfigError."""
    before, sys.argv = sys.argv, [*command, *words]
    try:
        with in_one_line():
            register()
            register_brought(OverridesParser.create().parse_overrides(words))
            Plugins.instance().register(CellSweeper)
            with initialize(config_path=None, job_name="harness", **VERSION):
                yield GlobalHydra.instance().hydra  # type: ignore[misc]
    finally:
        sys.argv = before


# Options as overrides


def written(options: Mapping[str, Any], swept: bool) -> list[str]:
    """Options as the command line writes them; `swept`: lists are what is swept over. Raises ConfigError."""
    return [
        f"{key}={write(key, value, swept)}"
        for name, given in options.items()
        for key, value in spread(name, given, kind_of(name))
    ]


def spread(key: str, value: Any, kind: Any) -> Iterator[tuple[str, Any]]:
    """A dict of options, of a node of that kind, as each of them."""
    if not isinstance(value, Mapping) or kind is Any:
        yield key, value
    elif get_origin(kind) is dict:  # of names that nobody knows beforehand
        yield from ((f"++{key}.{name}", inner) for name, inner in value.items())
    else:
        for name, inner in value.items():
            if key in GROUPS and name == "name":
                yield key, inner
            else:
                yield from spread(f"{key}.{name}", inner, kind_of(f"{key}.{name}"))


def kind_of(key: str) -> Any:
    """The type of an option; None where only Hydra knows it, Any where it is whatever it is given."""
    kind: Any = Config
    for name in key.split("."):
        if kind is Config and (name in GROUPS or name == "hydra"):
            kind = GROUPS.get(name)
        else:
            kind = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    return kind


def write(key: str, value: Any, swept: bool) -> str:
    """A value, or with `swept` a list of values, in Hydra's words."""
    value = as_plain(key, value)
    if isinstance(value, list) and swept:
        if not value:
            raise ConfigError(f"{key}=[] names no value: there is nothing to run")
        return ",".join(Transformer.str(quoted(element)) for element in value)
    if isinstance(value, list) and takes_one(kind_of(key)):
        raise ConfigError(f"{key}={value} names several values, and this is one run: harness.sweep runs each")
    return Transformer.str(quoted(value))


def takes_one(kind: Any) -> bool:
    """Whether a list is no value of an option of that type."""
    return kind is not None and kind is not Any and get_origin(kind) is not list


def as_plain(key: str, value: Any) -> Any:
    """A value of Python's or NumPy's as Hydra knows it. Raises ConfigError where it knows none such."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): as_plain(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [as_plain(key, element) for element in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{key}: {type(value).__name__} is no kind of value that an option can have")
