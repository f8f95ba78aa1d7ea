"""What a run writes while it runs: `history.jsonl`, a line an epoch, and `progress.json`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypedDict

from harness.store.files import (
    Count,
    Damaged,
    Seconds,
    append,
    read_json,
    read_json_lines,
    to_json,
    write_atomically,
    write_json,
)

HISTORY, PROGRESS = "history.jsonl", "progress.json"


class Progress(TypedDict):
    """How far a run is: epochs done and in all, seconds left by its own estimate, and when that was written."""

    epoch: Count
    epochs: Count
    left_s: Seconds
    time: Seconds


def append_epoch(directory: Path, summary: dict[str, Any]) -> None:
    """Add an epoch's summary: epoch, step, loss and its parts, lr, images_per_s, elapsed_s[, validation]."""
    append(directory / HISTORY, to_json(summary) + "\n", durable=False)


def read_history(directory: Path) -> list[dict[str, Any]]:
    """The epochs' summaries, oldest first; none where there is no such file. Raises Damaged."""
    return read_json_lines(Path(directory) / HISTORY, dict[str, Any])


def cut_history(directory: Path, epochs: int) -> None:
    """Keep the first epochs: a run that resumes goes on after its checkpoint, and takes later steps again."""
    try:
        rows = read_history(directory)
    except Damaged:
        rows = []
    write_atomically(directory / HISTORY, "".join(f"{to_json(row)}\n" for row in rows[:epochs]))


def write_progress(directory: Path, epoch: int, epochs: int, left_s: float) -> None:
    """Say how far the run is."""
    write_json(directory / PROGRESS, {"epoch": epoch, "epochs": epochs, "left_s": left_s, "time": time.time()})


def read_progress(directory: Path) -> Progress | None:
    """How far a run is; None where it does not say."""
    try:
        return read_json(directory / PROGRESS, Progress)
    except Damaged:
        return None
