"""From run directories and exported files to one tidy table, a row a run.

Half-finished sweeps are welcome: runs without a record are counted, failed ones kept with their status.
Records of older versions may lack diagnostics, shift or whole metrics; the columns are then empty.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import arms, mixtures
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.exports import read_export
from analysis.records.options import as_text, value_at
from analysis.records.rows import read_row
from analysis.records.study import Study, study_of
from harness.store.aside import TRAINED
from harness.store.history import HISTORY, PROGRESS
from harness.store.record import RECORD

if TYPE_CHECKING:
    import pandas as pd

KEY = ["data", "model", "arm", "teacher_set", "seed"]
_TEACHER = re.compile(r"-set\d+-m\d+-[0-9a-f]{12}$")  # a run directory in the bank


def load(
    *paths: str | Path,
    study: Study | None = None,
    where: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
) -> pd.DataFrame:
    """All runs below the folders (or in exported .csv / .parquet files) as one table, a row a run.

    Teachers, which are runs in the bank, are left out.

    study: an `analysis.Study` that names arms and factors; by default the one that the records declare.
    where: keep only runs whose configuration has these values, e.g. {"train.epochs": "40"}.
    allow: mixtures to let through, of code, data, recipe, teachers, or "all"; they are then marked in column
    `mixed`.

    Raises AnalysisError where nothing is found, Mixture where runs that differ in more than method, teacher
    set and seed would share a cell. `frame.attrs` holds `unfinished` (directories without a record) and
    `mixed` (texts).
    """
    import pandas as pd

    paths = paths or ("runs",)
    rows, unfinished = _rows(map(Path, paths))
    rows = [row for row in rows if _is_student(row) and _matches(row["config"], where or {})]
    if not rows:
        raise AnalysisError(
            f"no run records under {', '.join(map(str, paths))}"
            + (f" with {', '.join(f'{k}={v}' for k, v in where.items())}" if where else "")
            + (f" ({len(unfinished)} unfinished runs)" if unfinished else "")
        )
    frame = pd.DataFrame(rows).drop_duplicates("run", keep="last").reset_index(drop=True)
    study = study or study_of(frame)
    frame["arm"] = arms.labels(frame, study)
    found = mixtures.find(frame, study)
    mixtures.refuse(found, allow)
    frame["mixed"] = mixtures.marks(frame, found)
    frame = _latest(frame)
    frame.attrs = {"unfinished": unfinished, "mixed": [str(item) for item in found]}
    return frame.sort_values(KEY, kind="stable").reset_index(drop=True)


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not end well, with what they said."""
    return frame.loc[frame["status"] != "done", ["run", "arm", "teacher_set", "seed", "status", "error", "directory"]]


def _rows(paths: Iterable[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of all runs under the paths, and the directories of runs without a record."""
    rows: list[dict[str, Any]] = []
    unfinished: list[str] = []
    for path in paths:
        if path.is_file() and path.name != RECORD:
            rows += read_export(path)
        elif path.exists():
            for directory, has_record in _run_directories(path.parent if path.is_file() else path):
                if _TEACHER.search(directory.name):
                    continue
                row = read_row(directory) if has_record else None
                if row is not None:
                    rows.append(row)
                elif not has_record:
                    unfinished.append(str(directory))
        else:
            raise AnalysisError(f"no such file or folder: {path}")
    return rows, unfinished


def _run_directories(root: Path) -> Iterator[tuple[Path, bool]]:
    """Directories of runs below root with whether they have a record; nothing is sought inside a run."""
    names = {entry.name for entry in os.scandir(root)}
    if names & {RECORD, TRAINED, PROGRESS, HISTORY}:
        yield root, RECORD in names
        return
    with os.scandir(root) as entries:
        folders = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    for name in folders:
        yield from _run_directories(root / name)


def _is_student(row: Mapping[str, Any]) -> bool:
    """Teachers are runs as well; their seeds are texts, `teacher/SET/MEMBER`."""
    return not isinstance(row["seed"], str)


def _matches(config: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    return all(as_text(value_at(config, key)) in str(wanted).split(",") for key, wanted in where.items())


def _latest(frame: pd.DataFrame) -> pd.DataFrame:
    """Of runs that differ only in what is not analysed (e.g. in diagnostics), the latest that is done."""
    order = frame.assign(_done=frame["status"] == "done", _ended=frame["ended"].fillna("").astype(str))
    order = order.sort_values(["_done", "_ended"], kind="stable")
    repeated = order.duplicated(KEY, keep="last")
    if repeated.any():
        names = ", ".join(sorted(order.loc[repeated, "run"]))
        warnings.warn(
            f"several runs of one arm, teacher set and seed: kept the latest, left out {names}",
            AnalysisWarning,
            stacklevel=3,
        )
    return frame.loc[order.index[~repeated]]
