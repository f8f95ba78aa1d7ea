"""What is odd about runs that are in the means: numbers that are right, but do not mean what they mean elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.records.texts import few

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 8  # kinds


def oddities(runs: pd.DataFrame, whose: str = "finished runs") -> list[str]:
    """The notes of finished runs, a line each with how many have it and which."""
    if "notes" not in runs:  # a baseline of runs that have none
        return []
    done = runs[runs["status"] == "done"] if "status" in runs else runs
    found: dict[str, list[str]] = {}
    for run, notes in zip(done["run"], done["notes"], strict=True):
        for note in notes if isinstance(notes, list) else ():
            found.setdefault(note, []).append(run)
    lines = [
        f"Odd, and in the means: {len(having)} of {len(done)} {whose}: {note} ({few(having)})."
        for note, having in found.items()
    ]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"Odd, and in the means: {len(lines) - SHOWN} more notes, in the column `notes` of an export."]
    return lines
