"""From run directories to one tidy table, a row a run; and back to a file.

Half-finished sweeps are welcome: runs without a record are counted, failed ones kept with their status.
Records of older versions may lack diagnostics, shift or whole metrics; the columns are then empty.
"""

from __future__ import annotations

import csv
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.record import DamagedRecord, read_record

if TYPE_CHECKING:
    import pandas as pd

KEY = ["data", "model", "arm", "teacher_set", "seed"]
PREFIXES = {"student": "", "teacher": "teacher_", "ensemble": "ensemble_"}  # of columns, by whose metrics they are
_COST = ("wall_s", "device_s", "images_per_s", "peak_memory_bytes", "parameters", "flops")
_TEACHER = re.compile(r"-set\d+-m\d+-[0-9a-f]{12}$")  # a run directory in the bank
_OBJECTS = ("config", "method_defaults")  # nested values, kept as JSON in exported files
_TEXTS = {
    *("run", "status", "method", "data", "model", "error", "directory", "revision", "code", "data_fingerprint"),
    *("teachers", "device", "host", "command", "started", "ended", "harness", "torch", "shift_source", *_OBJECTS),
}  # columns that may look like numbers


class AnalysisError(ValueError):
    """Input that cannot be analysed; its message is the one line that says why."""


class Mixture(AnalysisError):
    """Runs that would mislead if they shared a cell of a table; its message lists them."""


class AnalysisWarning(UserWarning):
    """Something was left out or is doubtful, and the message names it."""


def load(
    *paths: str | Path,
    study: Any = None,
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

    from analysis import arms, mixtures
    from analysis.study import study_of

    paths = paths or ("runs",)
    rows: list[dict[str, Any]] = []
    unfinished: list[str] = []
    for path in map(Path, paths):
        if path.is_file() and path.name != "record.json":
            rows += _read_export(path)
        elif path.exists():
            for directory, has_record in _run_directories(path.parent if path.is_file() else path):
                if _TEACHER.search(directory.name):
                    continue
                row = _read_run(directory) if has_record else None
                if row is not None:
                    rows.append(row)
                elif not has_record:
                    unfinished.append(str(directory))
        else:
            raise AnalysisError(f"no such file or folder: {path}")
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


def _read_export(path: Path) -> list[dict[str, Any]]:
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


def _run_directories(root: Path) -> Iterator[tuple[Path, bool]]:
    """Directories of runs below root with whether they have a record; nothing is sought inside a run."""
    names = {entry.name for entry in os.scandir(root)}
    if names & {"record.json", "trained.json", "progress.json", "history.jsonl"}:
        yield root, "record.json" in names
        return
    with os.scandir(root) as entries:
        folders = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    for name in folders:
        yield from _run_directories(root / name)


def _read_run(directory: Path) -> dict[str, Any] | None:
    try:
        record = read_record(directory)
    except (DamagedRecord, UnicodeDecodeError) as error:
        warnings.warn(f"left out a damaged record: {error}", AnalysisWarning, stacklevel=3)
        return None
    return row_of(record, str(directory)) if record else None


def row_of(record: dict[str, Any], directory: str = "") -> dict[str, Any]:
    """One record as a flat row. What an older or a failed record lacks is left out."""
    config = record["config"]
    method, teachers = config.get("method") or {}, config.get("teachers") or {}
    provenance = record.get("provenance") or {}
    git = provenance.get("git") or {}
    error = record.get("error")
    row = {
        "run": str(record.get("hash") or Path(directory).name),
        "status": record["status"],
        "arm": method.get("name"),
        "method": method.get("name"),
        "data": (config.get("data") or {}).get("name"),
        "model": config.get("model"),
        "teacher_size": teachers.get("size"),
        "teacher_set": teachers.get("set", 0),
        "seed": config.get("seed"),
        "error": f"{error.get('type')}: {error.get('message')}" if error else None,
        "directory": directory,
        "revision": _revision(git),
        # Where the record has a hash of the code that decides results, it says more than a revision: a commit
        # to the documentation is no other code.
        "code": provenance.get("code") or _revision(git),
        "data_fingerprint": provenance.get("data"),
        "teachers": ",".join(provenance.get("teachers") or []) or None,
        "method_defaults": provenance.get("method_defaults"),
        **{name: provenance.get(name) for name in ("device", "host", "command", "started", "ended", "harness")},
        "torch": (provenance.get("versions") or {}).get("torch"),
        "config": config,
    }
    metrics = record.get("metrics") or {}
    for who, prefix in PREFIXES.items():
        test = (metrics.get(who) or {}).get("test") or {}
        row |= {prefix + name: value for name, value in test.items() if _number(value)}
    validation = (metrics.get("student") or {}).get("validation") or {}
    row |= {"validation_" + name: value for name, value in validation.items() if _number(value)}
    cost = record.get("cost") or {}
    row |= {name: cost[name] for name in _COST if name in cost}
    return row | _diagnostics(record.get("diagnostics") or {}) | _shift(record)


def _diagnostics(found: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for who in ("teachers", "members"):
        for split, values in (found.get(who) or {}).items():
            row |= {f"{who}_{split}_{name}": value for name, value in values.items()}
    row |= {f"fidelity_{name}": value for name, value in (found.get("fidelity") or {}).items()}
    barriers = found.get("barriers") or {}
    for name in ("barrier", "barrier_bn"):
        values = [pair[name] for pair in barriers.values() if pair.get(name) is not None]
        if values:
            row[name] = sum(values) / len(values)  # the mean over pairs of members
    if found.get("dee") is not None:
        row |= {"dee": found["dee"], "dee_cap": found.get("dee_cap")}
    return row


def _shift(record: dict[str, Any]) -> dict[str, Any]:
    shift = record.get("shift") or {}
    row: dict[str, Any] = {"shift_source": shift["source"]} if "source" in shift else {}
    for who, prefix in PREFIXES.items():
        row |= {f"{prefix}shift_{k}": v for k, v in (shift.get(who) or {}).items() if _number(v)}
        for name, found in (record.get("ood") or {}).items():
            row |= {f"{prefix}ood_{name}_{k}": v for k, v in (found.get(who) or {}).items() if _number(v)}
    return row


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _revision(git: dict[str, Any]) -> str | None:
    if not git.get("revision"):
        return None
    dirty = f"+{(git.get('diff_hash') or 'changes')[:8]}" if git.get("dirty") else ""
    return git["revision"][:10] + dirty


def value_at(config: Mapping[str, Any], dotted: str) -> Any:
    """The configuration's value at `train.epochs`; None where there is none."""
    value: Any = config
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 40}} as {"train.epochs": 40}; an empty mapping stays a value."""
    if not isinstance(value, Mapping) or not value:
        return {prefix[:-1]: value}
    return {k: v for name, inner in value.items() for k, v in flatten(inner, f"{prefix}{name}.").items()}


def _is_student(row: Mapping[str, Any]) -> bool:
    """Teachers are runs as well; their seeds are texts, `teacher/SET/MEMBER`."""
    return not isinstance(row["seed"], str)


def _matches(config: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    return all(text(value_at(config, key)) in str(wanted).split(",") for key, wanted in where.items())


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
