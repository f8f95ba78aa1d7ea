"""A run's directory: is it finished, can it be written to, what did killed processes leave in it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.store.aside import BEFORE, TRAINED, clear_damaged
from harness.store.checkpoint import CHECKPOINT
from harness.store.history import PROGRESS
from harness.store.record import RECORD, answers, read_record

# Scratch files of atomic writes (store.files), of claims, probes and views; whoever wrote them is gone where they are
# old, or where only the owner of the claim writes such.
SCRATCH = re.compile(r"\.(?P<of>.+?)\.(?:[0-9a-f]{12}|[0-9a-f]{32}|\d+|\d+\.tmp)$")
OWNERS = ("record.json", "history.jsonl", "progress.json", "checkpoint.pt", "predictions.npz", "student.safetensors")
OLD_S = 3600.0


def finished(directory: Path, config: dict[str, Any], console: Console) -> dict[str, Any] | None:
    """The record of a run that need not run again: done, with all that is asked of it, or diverged, as it would again."""
    record = read_or_set_aside(directory, RECORD, console)
    return record if record is not None and answers(record, config["evaluate"]) else None


def read_or_set_aside(directory: Path, name: str, console: Console) -> dict[str, Any] | None:
    """A record, or None; a damaged one is set aside under another name, not trusted and not deleted."""
    if said := clear_damaged(directory, name):
        console.say(f"{said}, and the run starts again")
    return read_record(directory, name)


def check_folders(config: dict[str, Any]) -> None:
    """Raise ConfigError where a folder of results is something else."""
    for option in ("runs", "bank"):
        if config[option] is not None and os.path.lexists(config[option]) and not Path(config[option]).is_dir():
            raise ConfigError(f"{option}={config[option]} is no folder")


def make_writable(directory: Path, option: str) -> None:
    """Make the directory. Raises ConfigError where nothing can be written to it; `option` is the one that moves it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write to {directory}: {error.strerror}; choose another folder with {option}=FOLDER"
        ) from error


def tidy(directory: Path) -> None:
    """Remove what killed processes left, but never a living one's. For the owner of the directory's claim."""
    for path in directory.iterdir():
        if (found := SCRATCH.match(path.name)) and (found["of"] in OWNERS or is_old(path)):
            path.unlink(missing_ok=True)


def is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > OLD_S
    except FileNotFoundError:
        return False


def has_leftovers(directory: Path) -> bool:
    """Whether a run that is done was killed before it had tidied up."""
    kept = any((directory / name).exists() for name in (CHECKPOINT, TRAINED, PROGRESS))
    return kept or any(directory.glob(f"*{BEFORE}"))
