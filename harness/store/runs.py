"""Which folders are runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.store.aside import TRAINED
from harness.store.record import RECORD, RUN


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run which has come to something: nobody else writes there. Raises OSError."""
    return any((folder.resolve() / name).exists() for name in (RECORD, TRAINED))


def find_runs(folder: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """The directories of runs and teachers, at or below a folder, each once, wherever links lead."""
    seen = set() if seen is None else seen
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    try:
        is_run = (folder / RECORD).exists() or RUN.search(folder.absolute().name)
        inner = [] if is_run else sorted(folder.iterdir())
        places = [place for place in inner if place.is_dir() and not place.name.startswith(".")]
    except OSError:  # nobody knows what is in it: it is taken for a run that cannot be read, by name
        is_run, places = True, []
    if is_run:
        yield folder
    for place in places:
        yield from find_runs(place, seen)
