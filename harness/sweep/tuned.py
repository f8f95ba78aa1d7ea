"""`tuned=FILE`: the options that `python -m harness.tune` has chosen, for the runs of the methods in the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer

from harness.config import ConfigError
from harness.store.face import Named
from harness.store.files import Damaged, check_shape, to_json, write_atomically
from harness.store.record import digest_of
from harness.store.yaml_file import read_yaml


class Choice(TypedDict):
    """What was chosen for a method, among how many trials, and the mean validation NLL that it had."""

    options: dict[str, Any]
    trials: int
    nll: float


class Settings(TypedDict):
    """What a run of the file is told of them; the rest is for people."""

    data: Named
    model: str


class Tuned(TypedDict):
    """The file. seeds: of the trials, which no run may have that uses it; settings: what all trials had in common."""

    seeds: list[int]
    settings: Settings
    methods: dict[str, Choice]
    digest: str


def write_tuned(path: Path, seeds: list[int], settings: dict[str, Any], methods: dict[str, Choice]) -> None:
    """Raises ConfigError where the file has another choice, which studies may have used."""
    found = {"seeds": seeds, "settings": settings, "methods": methods}
    content = {**found, "digest": digest_of(found)}
    if path.exists() and read_tuned(path)["digest"] != content["digest"]:
        raise ConfigError(
            f"{path} has what another tuning chose, and stays as it is: give this one a folder of its own (runs=FOLDER), or "
            "remove the file; the same command then runs nothing again"
        )
    content = json.loads(to_json(content))  # parts that are one object would become aliases, which nobody reads
    write_atomically(
        path, "# chosen by python -m harness.tune on validation data\n" + yaml.safe_dump(content, sort_keys=False)
    )


def read_tuned(path: Path) -> Tuned:
    """Raises ConfigError where there is no such file, or one that was changed."""
    try:
        found = read_yaml(path)
        digest = None if found is None else digest_of(check_shape(found, Tuned, str(path)))
    except (Damaged, TypeError, ValueError) as error:  # YAML has values that JSON has not, and so no digest
        raise ConfigError(f"tuned={path} is not what python -m harness.tune has written: {error}") from error
    if found is None:
        raise ConfigError(f"tuned={path}: no such file, or an empty one; python -m harness.tune writes it")
    if found["digest"] != digest:
        raise ConfigError(f"tuned={path} was changed after the tuning: its digest does not fit")
    return found


def apply(overrides: Sequence[str], read: Callable[[Path], Tuned] = read_tuned) -> tuple[str, ...]:
    """A run's overrides with what was tuned for its method: as if it stood behind `method=NAME`.

    Raises ConfigError where the file does not know the method, and where the overrides say an option otherwise. What it was
    tuned on stands in the configuration, so that no spelling of a seed gets past its check.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    said = {override.key_or_group: override for override in parsed}
    if "tuned" not in said or (path := said["tuned"].value()) is None:
        return tuple(overrides)
    found = read(Path(str(path)).expanduser())
    if "method" not in said:
        raise ConfigError("tuned=FILE needs method=NAME beside it")
    name = str(said["method"].value())
    if name not in found["methods"]:
        raise ConfigError(f"tuned={path} knows {', '.join(found['methods'])}, not method={name}")
    choice = found["methods"][name]
    if twice := [key for option in choice["options"] if (key := f"method.{option}") in said]:
        raise ConfigError(f"{said[twice[0]].input_line}: tuned={path} chooses it; leave out one of them")
    on = f"{found['settings']['data']['name']} x {found['settings']['model']}"
    about = {
        **{"digest": found["digest"], "trials": choice["trials"], "over": sorted(choice["options"]), "on": on},
        "seeds": found["seeds"],
    }
    texts: list[str] = []
    for text, override in zip(overrides, parsed, strict=True):
        if override.key_or_group == "tuned":
            texts.append(f"tuned={Transformer.str(about)}")
        elif override.key_or_group == "method":
            texts += [
                text,
                *(f"method.{option}={Transformer.str(value)}" for option, value in choice["options"].items()),
            ]
        else:
            texts.append(text)
    return tuple(texts)
