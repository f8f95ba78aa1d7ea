"""The baseline file of the regression gate: the metrics, costs and recipes of frozen runs. The one door to it."""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from analysis.records import metrics
from analysis.records.errors import AnalysisError
from analysis.records.mixtures import recipe
from analysis.records.options import of_method
from harness.store.files import Damaged, read_json, write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study

FORMAT = 1
KEEP = (
    *("run", "data", "model", "arm", "method", "teacher_set", "seed", "revision", "device", "host"),
    *("data_fingerprint", "teachers", "images_per_s", "device_s", "peak_memory_bytes", "parameters", "flops"),
)  # columns of a frozen run, beside its metrics


class Baseline(TypedDict):
    """A baseline file. runs: KEEP and metrics of each, with its flat `recipe` and the `options` of its method."""

    format: int
    frozen: str  # when, ISO 8601
    alpha: float
    test: str
    margins: dict[str, float]  # declared ones
    runs: list[dict[str, Any]]


def freeze(runs: pd.DataFrame, study: Study, path: str | Path) -> Baseline:
    """Write the done runs' metrics and costs to a baseline file (JSON), and return its content."""
    done = runs[runs["status"] == "done"]
    if not len(done):
        raise AnalysisError("no finished runs to freeze")
    names = [m.column for m in metrics.present(list(done.columns))]
    rows = []
    for row in done.to_dict("records"):
        kept = {name: _plain(row[name]) for name in (*KEEP, *names) if name in row}
        rows.append(kept | {"recipe": recipe(row["config"], study.factors), "options": of_method(row["config"])})
    content: Baseline = {
        "format": FORMAT,
        "frozen": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "alpha": study.alpha,
        "test": study.test,
        "margins": {name: value for name, value in study.margins.items() if name in names},
        "runs": rows,
    }
    write_atomically(Path(path), json.dumps(content, indent=1) + "\n")
    return content


def read_baseline(path: str | Path) -> Baseline:
    """The content of a baseline file. Raises AnalysisError where it is not one."""
    try:
        content = read_json(Path(path))
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    if content is None:
        raise AnalysisError(f"no such baseline file: {path} (write one with `python -m analysis freeze`)")
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.get("runs"):
        raise AnalysisError(f"{path} is not a baseline file of format {FORMAT}")
    return content


def _plain(value: Any) -> Any:
    """A value that JSON has: numpy numbers as Python's, NaN as null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
