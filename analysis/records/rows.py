"""One record as one flat row: metrics, cost, diagnostics and provenance under plain column names.

This is analysis' door to `record.json`. What an older or a failed record lacks is left out of its row.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from analysis.records.errors import AnalysisError, AnalysisWarning
from harness.store.files import Damaged
from harness.store.record import read_record

PREFIXES = {"student": "", "teacher": "teacher_", "ensemble": "ensemble_"}  # of columns, by whose metrics they are
COST = ("wall_s", "device_s", "images_per_s", "peak_memory_bytes", "parameters", "flops")


def read_row(directory: Path) -> dict[str, Any] | None:
    """The row of a run directory; None, with a warning, where its record is damaged."""
    try:
        record = read_record(directory)
    except Damaged as error:
        warnings.warn(f"left out a damaged record: {error}", AnalysisWarning, stacklevel=4)
        return None
    return row_of(record, str(directory)) if record else None


def read_barriers(directory: str | Path) -> dict[str, dict[str, Any]]:
    """Losses on the straight line between each two of a student's members; empty where none were measured.

    Raises AnalysisError where the record is damaged.
    """
    try:
        record = read_record(Path(directory)) if directory else None
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    return ((record or {}).get("diagnostics") or {}).get("barriers") or {}


def row_of(record: dict[str, Any], directory: str = "") -> dict[str, Any]:
    """A record as a row."""
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
    row |= {name: cost[name] for name in COST if name in cost}
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
