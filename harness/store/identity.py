"""Which run a configuration means: the hash of all that matters for its result, and the directory of that name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Where files lie, what runs them, how often they save, what is asked of them: none of it changes a result. (Diagnostics
# are asked of a student's members, which are gone once they are merged: that needs another run.)
INCIDENTAL = (
    *("runs", "bank", "device", "devices", "deterministic", "threads"),
    *("force", "fail_fast", "harness", "sweep", "study", "tune"),
    *(
        "data.root",
        "data.download",
        "data.workers",
        "data.verify",
        "train.checkpoint_every",
        "train.capture",
        "evaluate.shift",
        "evaluate.ood",
    ),
)

# Options that came after runs had been made, and what those did without: who says no more than that means the same run.
LATER = {"data.train": None, "data.options": {}, "network": {}, "teachers.network": {}, "tuned": None}
TEACHER = re.compile(r"(.*)-set(\d+)-m(\d+)-[0-9a-f]{12}")  # a teacher's directory
TEACHER_SEED = re.compile(r"teacher/(\d+)/(\d+)")  # its set and its number there
UNSAFE = re.compile(r"[/:\\]")  # in a folder's name
NESTED = [(key, *key.split(".")) for key in (*INCIDENTAL, *LATER) if "." in key]


def relevant(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that matters for the result; what it keeps it shares with the configuration."""
    kept = {
        key: dict(value) if isinstance(value, dict) else value for key, value in config.items() if key not in INCIDENTAL
    }
    for key in LATER.keys() & kept.keys():
        if kept[key] == LATER[key]:
            del kept[key]
    for key, group, name in NESTED:
        if key == "data.root" and config["data"]["name"] == "folder":
            continue  # where the images lie is all that tells one such set from another
        if key not in LATER or kept[group].get(name) == LATER[key]:
            kept[group].pop(name, None)
    return kept


def run_hash(config: dict[str, Any]) -> str:
    """Twelve hex digits of what matters for the result: equal hashes, equal runs.

    Records keep the hash that they were made under: a change of this rule, or of INCIDENTAL, needs a new version of
    the record.
    """
    return hashlib.sha256(json.dumps(relevant(config), sort_keys=True).encode()).hexdigest()[:12]


def means(config: dict[str, Any], directory: Path) -> bool:
    """Whether a configuration is of the run that a directory is named for."""
    try:
        return directory.name.endswith(f"-{run_hash(config)}")
    except (KeyError, TypeError, AttributeError):  # what was read from a file need not be whole
        return False


def run_directory(config: dict[str, Any]) -> Path:
    """RUNS/data-model-method-sSEED-HASH; a teacher's is BANK/data-model-setS-mM-HASH."""
    start = f"{in_path(config['data']['name'])}-{in_path(config['model'])}"
    if is_teacher(config):
        _, chosen, member = config["seed"].split("/")
        return bank_folder(config) / f"{start}-set{chosen}-m{member}-{run_hash(config)}"
    name = f"{start}-{config['method']['name']}-s{config['seed']}-{run_hash(config)}"
    return Path(config["runs"]) / name


def in_path(name: str) -> str:
    """A name such as timm/NAME or MODULE:FUNCTION as part of a file's."""
    return UNSAFE.sub("_", name)


def bank_folder(config: dict[str, Any]) -> Path:
    """Where trained teachers are kept."""
    return Path(config["bank"] or Path(config["runs"]) / "teachers")


def is_teacher(config: dict[str, Any]) -> bool:
    return isinstance(config["seed"], str)


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as {"train.lr": 0.1, ...}; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
