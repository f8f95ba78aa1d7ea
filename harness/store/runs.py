"""Which folders are runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.store.record import RECORD, RUN


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's own: it holds a record, or is named like one. Raises OSError."""
    return (folder / RECORD).exists() or RUN.search(folder.absolute().name) is not None


def find_runs(folder: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """The directories of runs and teachers, at or below a folder, each once, wherever links lead."""
    seen = set() if seen is None else seen
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    try:
        alone = is_run(folder)
        inner = [] if alone else sorted(folder.iterdir())
        places = [place for place in inner if place.is_dir() and not place.name.startswith(".")]
    except OSError:  # nobody knows what is in it: it is taken for a run that cannot be read, by name
        alone, places = True, []
    if alone:
        yield folder
    for place in places:
        yield from find_runs(place, seen)
