"""The table of runs as one file, .csv or .parquet, and back: the one door to such files.

Its last column seals it: the same text in every row says how many rows there are, with a digest of all other cells. So
a part is not taken for the whole, and nothing in it was changed since. Files without that column are older, or were
changed on purpose.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records.errors import AnalysisError
from analysis.records.outputs import write_output
from analysis.records.rows import check_row
from harness.store.files import Damaged, parse_json, read_bytes

if TYPE_CHECKING:
    import pandas as pd

SEAL = "sealed"
MOST = 1 << 30  # bytes
_OBJECTS = ("config", "method_defaults", "notes")  # nested values, kept as JSON
_TEXTS = {
    *("run", "status", "method", "data", "model", "error", "directory", "revision", "code", "data_fingerprint"),
    *("teachers", "teacher_weights", "arithmetic", "device", "host", "command", "started", "ended"),
    *("harness", "torch", "shift_source", *_OBJECTS),
}  # columns that may look like numbers


def export(frame: pd.DataFrame, path: str | Path) -> Path:
    """Write the table to .csv or .parquet (needs pyarrow); `load` reads it again."""
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise AnalysisError(f"cannot export to {path.name!r}: use .csv or .parquet")
    flat = frame.drop(columns=["arm", "mixed"], errors="ignore").copy()
    for column in _OBJECTS:
        flat[column] = [json.dumps(value) if isinstance(value, dict | list) else None for value in flat[column]]
    flat.attrs = {}
    flat[SEAL] = _seal(_cells(flat))
    if path.suffix == ".csv":
        return write_output(path, flat.to_csv(index=False))
    _require_pyarrow()
    out = io.BytesIO()
    flat.to_parquet(out, index=False)
    return write_output(path, out.getvalue())


def read_export(path: Path) -> list[dict[str, Any]]:
    """The rows of an exported file. Raises AnalysisError where it is not one, or not all of one."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise AnalysisError(f"cannot read {path}: give run folders, or a .csv or .parquet that `export` wrote")
    try:
        content = read_bytes(path, MOST)
        if content is None:
            raise Damaged(f"{path} is gone")
        rows = readers[path.suffix](content, path)
        for row in rows:
            for column in _OBJECTS:
                text = row.get(column)
                row[column] = parse_json(str(text).encode(), Any, f"{path}, column {column},") if text else None
        return [check_row(row, f"{path}, row {i},") for i, row in enumerate(rows, 1)]
    except Damaged as error:
        raise AnalysisError(str(error)) from error


def _read_csv(content: bytes, path: Path) -> list[dict[str, Any]]:
    # Not by pandas: what it takes to keep a number's last digit depends on its version.
    try:
        cells = _split(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Damaged(f"{path} is no CSV file ({error})") from error
    head, *body = _unsealed(cells, path)
    _check_columns(head, path)
    if any(len(row) != len(head) for row in body):
        raise Damaged(f"{path} is damaged: it has a row of another length than its first")
    rows = [{name: _as_written(name, text) for name, text in zip(head, row, strict=True)} for row in body]
    _check_numbers(rows, head, path)
    return rows


def _read_parquet(content: bytes, path: Path) -> list[dict[str, Any]]:
    _require_pyarrow()
    import pandas as pd
    from pyarrow import ArrowException

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Damaged(f"{path} is no Parquet file ({reason})") from error
    _check_columns([str(name) for name in frame.columns], path)
    if SEAL in frame:
        seals = list(frame.pop(SEAL))
        cells = _cells(frame)
        _unsealed([[*row, seal] for row, seal in zip(cells, [SEAL, *seals], strict=True)], path)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    _check_numbers(rows, list(frame.columns), path)
    return rows


def _cells(flat: pd.DataFrame) -> list[list[str]]:
    """A table as the texts that a CSV file has, its head first."""
    return _split(flat.to_csv(index=False))


def _split(text: str) -> list[list[str]]:
    csv.field_size_limit(MOST)  # a configuration or an error's message may be longer than the module's own limit
    return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]


def _seal(cells: list[list[str]]) -> str:
    return f"{len(cells) - 1} rows {hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:32]}"


def _unsealed(cells: list[list[str]], path: Path) -> list[list[str]]:
    """The cells without their seal. Raises Damaged where it does not fit."""
    if not cells:
        raise Damaged(f"{path} is empty")
    if SEAL not in cells[0]:
        return cells
    inside = [row[:-1] for row in cells]
    if cells[0][-1] != SEAL or {row[-1] for row in cells[1:]} != {_seal(inside)}:
        raise Damaged(
            f"{path} is not whole, or was changed after it was written: its column `{SEAL}` does not fit "
            "(export again; where you changed it on purpose, drop that column)"
        )
    return inside


def _check_columns(names: list[str], path: Path) -> None:
    if missing := {"run", "status", "config"} - {*names}:
        raise Damaged(f"{path} is not an exported table of runs: it lacks {', '.join(sorted(missing))}")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise Damaged(f"{path} is damaged: it has column {repeated[0]} twice")


def _check_numbers(rows: list[dict[str, Any]], names: list[str], path: Path) -> None:
    """Raise Damaged for a number that is none."""
    for name in (name for name in names if name not in _TEXTS):
        for row in rows:
            if not isinstance(row[name], int | float | None) or isinstance(row[name], bool):
                raise Damaged(f"{path} is damaged: its column {name} holds {str(row[name])[:40]!r}")


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
