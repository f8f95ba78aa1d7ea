"""From run directories and exported files to one tidy table, a row a run.

Half-finished sweeps are welcome: runs without a record are counted, failed ones kept with their status.
Records of older versions may lack diagnostics, shift or whole metrics; the columns are then empty.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import arms, mixtures
from analysis.records.declared import study_of
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.finding import collect
from analysis.records.oddities import oddities
from analysis.records.options import as_text, value_at
from analysis.records.outcomes import add_collapse
from analysis.records.texts import few

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study

KEY = ["data", "model", "arm", "teacher_set", "seed"]


def load(
    *paths: str | Path,
    study: Study | None = None,
    where: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
) -> pd.DataFrame:
    """All runs below the folders (or in exported .csv / .parquet files) as one table, a row a run.

    Teachers, which are runs in the bank, are left out; so are records that cannot be believed, with a warning each.

    study: an `analysis.Study` that names arms and factors; by default the one that the records declare.
    where: keep only runs whose configuration has these values, e.g. {"train.epochs": "40"}.
    allow: mixtures to let through, of code, data, recipe, teachers, or "all"; they are then marked in column
    `mixed`.

    Raises AnalysisError where nothing is found, or where copies of one run differ; Mixture where runs that differ in
    more than method, teacher set and seed would share a cell. `frame.attrs` holds `unfinished` (directories without a
    record), `lost` (hashes of done runs whose files are gone) and `mixed` (texts).
    """
    import pandas as pd

    paths = paths or ("runs",)
    found = collect(map(Path, paths))
    rows = [row for row in found.rows() if _is_student(row) and _matches(row["config"], where or {})]
    if not rows:
        raise AnalysisError(
            f"no run records under {', '.join(map(str, paths))}"
            + (f" with {', '.join(f'{k}={v}' for k, v in where.items())}" if where else "")
            + (f" ({len(found.unfinished)} unfinished runs)" if found.unfinished else "")
        )
    frame = pd.DataFrame(rows)
    study = study or study_of(frame)
    frame = add_collapse(frame, study.primary, study.collapse)
    frame["arm"] = arms.labels(frame, study)
    mixed = mixtures.find(frame, study)
    mixtures.refuse(mixed, allow)
    frame["mixed"] = mixtures.marks(frame, mixed)
    frame = _latest(frame)
    lost = [run for run in frame["run"] if run in found.lost]
    frame.attrs = {"unfinished": found.unfinished, "lost": lost, "mixed": [str(item) for item in mixed]}
    if lost:
        text = f"the files of {len(lost)} done runs are gone, their records alone are counted: {few(lost)}"
        warnings.warn(text, AnalysisWarning, stacklevel=2)
    for line in oddities(frame):
        warnings.warn(line, AnalysisWarning, stacklevel=2)
    return frame.sort_values(KEY, kind="stable").reset_index(drop=True)


def failures(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that did not end well, with what they said."""
    return frame.loc[frame["status"] != "done", ["run", "arm", "teacher_set", "seed", "status", "error", "directory"]]


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
