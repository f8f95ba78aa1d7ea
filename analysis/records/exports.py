"""The table of runs as one file, .csv or .parquet, and back: the one door to such files."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

_OBJECTS = ("config", "method_defaults")  # nested values, kept as JSON
_TEXTS = {
    *("run", "status", "method", "data", "model", "error", "directory", "revision", "code", "data_fingerprint"),
    *("teachers", "device", "host", "command", "started", "ended", "harness", "torch", "shift_source", *_OBJECTS),
}  # columns that may look like numbers


def export(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write the table to .csv or .parquet (needs pyarrow); `load` reads it again."""
    path = Path(path)
    flat = frame.drop(columns=["arm", "mixed"], errors="ignore").copy()
    for column in _OBJECTS:
        flat[column] = [json.dumps(value) if value is not None else None for value in flat[column]]
    if path.suffix == ".csv":
        flat.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        _require_pyarrow()
        flat.attrs = {}
        flat.to_parquet(path, index=False)
    else:
        raise AnalysisError(f"cannot export to {path.name!r}: use .csv or .parquet")
    return path


def read_export(path: Path) -> list[dict[str, Any]]:
    """The rows of an exported file. Raises AnalysisError where it is not one."""
    import pandas as pd

    if path.suffix == ".csv":
        # Not by pandas: what it takes to keep a number's last digit depends on its version.
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [{name: _as_written(name, text) for name, text in row.items()} for row in reader]
        columns = set(reader.fieldnames or ())
    elif path.suffix == ".parquet":
        _require_pyarrow()
        frame = pd.read_parquet(path)
        rows, columns = frame.astype(object).where(frame.notna(), None).to_dict("records"), set(frame.columns)
    else:
        raise AnalysisError(f"cannot read {path}: give run folders, or a .csv or .parquet that `export` wrote")
    missing = {"run", "status", "config"} - columns
    if missing:
        raise AnalysisError(f"{path} is not an exported table of runs: it lacks {', '.join(sorted(missing))}")
    for row in rows:
        for column in _OBJECTS:
            row[column] = json.loads(row[column]) if row.get(column) else None
    return rows


def _as_written(name: str, text: str) -> Any:
    """A cell of an exported file as the value that it had."""
    if not text:
        return None
    if name not in _TEXTS:
        for kind in (int, float):
            with suppress(ValueError):
                return kind(text)
    return text


def _require_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise AnalysisError(
            "Parquet files need pyarrow: pip install 'ensemble-distillation-harness[parquet]', or use .csv"
        )
