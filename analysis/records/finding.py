"""Which runs there are below some folders and in some exported files: every run once.

Whatever cannot be read or believed costs itself, by name. Copies of a run are one run where they say the same; where
they do not, nobody knows which to believe.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.exports import read_export
from analysis.records.rows import read_row
from harness.store.aside import TRAINED
from harness.store.files import Damaged
from harness.store.history import HISTORY, PROGRESS
from harness.store.record import RECORD

_TEACHER = re.compile(r"-set\d+-m\d+-[0-9a-f]{12}$")  # a run directory in the bank
_OF_A_COPY = {"directory", "notes"}  # columns in which copies of a run may differ


@dataclass
class Found:
    """runs: by hash, where each lies and its row. unfinished: directories without a record. lost: hashes of done runs
    whose files are gone.
    """

    runs: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def rows(self) -> list[dict[str, Any]]:
        """A row a run."""
        return [row for _, row in self.runs.values()]

    def add(self, place: str, row: dict[str, Any], is_whole: bool = True) -> None:
        """Take a run; of copies that say the same, one that has its files, and then the last.

        Raises AnalysisError where they do not say the same.
        """
        run = row["run"]
        if run in self.runs:
            other, known = self.runs[run]
            differing = sorted(
                name
                for name in known.keys() & row.keys() - _OF_A_COPY
                if None not in (known[name], row[name]) and known[name] != row[name]
            )
            if differing:
                raise AnalysisError(
                    f"run {run} is in {other} and in {place}, and they differ ({', '.join(differing[:6])}): "
                    "leave out the one that is not to be believed"
                )
            if not is_whole and run not in self.lost:
                return
        self.runs[run] = place, row
        (self.lost.discard if is_whole else self.lost.add)(run)


def collect(paths: Iterable[Path]) -> Found:
    """The runs under the paths. Raises AnalysisError for a path that is not there or no such file."""
    found = Found()
    seen: set[str] = set()
    for path in paths:
        if path.is_file() and path.name != RECORD:
            for row in read_export(path):
                found.add(str(path), row)
        elif path.is_file() or path.is_dir():
            for directory, has_record in _run_directories(path.parent if path.is_file() else path, seen):
                _take(found, directory, has_record)
        else:
            what = "neither a folder nor a file" if os.path.lexists(path) else "no such file or folder"
            raise AnalysisError(f"{what}: {path}")
    return found


def _take(found: Found, directory: Path, has_record: bool) -> None:
    if _TEACHER.search(directory.name):
        return
    if not has_record:
        found.unfinished.append(str(directory))
        return
    try:
        read = read_row(directory)
    except Damaged as error:
        kind = "a damaged record" if error.mend else "a record"
        warnings.warn(f"left out {kind}: {error}", AnalysisWarning, stacklevel=5)
        return
    if read is not None:
        row, lost = read
        found.add(str(directory), row, is_whole=not lost)


def _run_directories(root: Path, seen: set[str]) -> Iterator[tuple[Path, bool]]:
    """Directories of runs below root with whether they have a record; nothing is sought inside a run.

    seen: the folders looked at before, to which links may lead back.
    """
    real = os.path.realpath(root)
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(root) as entries:
            is_folder = {entry.name: not entry.name.startswith(".") and entry.is_dir() for entry in entries}
        str(root).encode()
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is no text"
        warnings.warn(f"left out {root}: {reason}", AnalysisWarning, stacklevel=6)
        return
    if is_folder.keys() & {RECORD, TRAINED, PROGRESS, HISTORY}:
        yield root, RECORD in is_folder
        return
    for name in sorted(name for name, yes in is_folder.items() if yes):
        yield from _run_directories(root / name, seen)
