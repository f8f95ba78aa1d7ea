"""The baseline file of the regression gate: the metrics, costs and recipes of frozen runs. The one door to it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from analysis.records import limits, metrics
from analysis.records.errors import AnalysisError
from analysis.records.mixtures import recipe
from analysis.records.options import is_deep, of_method
from analysis.records.outputs import write_output
from analysis.records.rows import MOST, Row
from harness.store.files import Damaged, check_shape, read_json, to_json
from harness.store.record import digest_of, is_sealed

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study

FORMAT = 1
PLACE = ("data", "model", "arm", "teacher_set", "seed")  # of a frozen run, which no other has
KEEP = (
    *("run", "data", "model", "arm", "method", "teacher_set", "seed", "revision", "device", "host"),
    *("data_fingerprint", "teachers", "teacher_weights"),
    *("images_per_s", "device_s", "peak_memory_bytes", "parameters", "flops"),
)  # columns of a frozen run, beside its metrics


class Frozen(TypedDict):
    """What every frozen run has; its other columns are those of a row."""

    run: str
    data: str
    model: str
    arm: str
    method: str
    teacher_set: int
    seed: int
    device: str | None
    recipe: dict[str, Any]
    options: dict[str, Any]


class Sealed(TypedDict, total=False):
    """What files of older versions have not."""

    digest: str  # of all the rest


class Baseline(Sealed):
    """A baseline file. runs: KEEP and metrics of each, with its flat `recipe` and the `options` of its method."""

    format: int
    frozen: str  # when, ISO 8601
    alpha: float
    test: Literal["guarded", "t", "sign_flip"]
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
        if row.get("notes"):
            kept["notes"] = row["notes"]
        rows.append(kept | {"recipe": recipe(row["config"], study.factors), "options": of_method(row["config"])})
    content: Baseline = {
        "format": FORMAT,
        "frozen": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "alpha": study.alpha,
        "test": study.test,
        "margins": {name: value for name, value in study.margins.items() if name in names},
        "runs": rows,
    }
    content["digest"] = digest_of(content)
    write_output(path, to_json(content, 1) + "\n")
    return content


def read_baseline(path: str | Path) -> Baseline:
    """The content of a baseline file. Raises AnalysisError where it is not one, or not to be believed."""
    path = Path(path)
    try:
        content = read_json(path)
        if content is None:
            raise AnalysisError(f"no such baseline file: {path} (write one with `python -m analysis freeze`)")
        return _check(content, path)
    except Damaged as error:
        raise AnalysisError(str(error)) from error


def _check(content: Any, path: Path) -> Baseline:
    """The content, where it is what `freeze` writes. Raises Damaged and AnalysisError."""
    if not isinstance(content, dict) or not isinstance(content.get("format"), int) or not content.get("runs"):
        raise Damaged(f"{path} is not a baseline file of format {FORMAT}")
    if content["format"] > FORMAT:
        raise Damaged(f"{path} is of format {content['format']}, this code reads up to {FORMAT}: upgrade it to read it")
    check_shape(content, Baseline, str(path))
    if "digest" in content and not is_sealed(content):
        raise Damaged(f"{path} was changed after it was written (where you did that on purpose, drop its `digest`)")
    for i, run in enumerate(content["runs"], 1):
        name = f"{path}, run {i},"
        check_shape(run, Frozen, name)
        check_shape(run, Row, name)
        for column, value in run.items():
            number = isinstance(value, int | float | None) and not isinstance(value, bool)
            if metrics.is_known(column) and not (number and (value is None or abs(value) < MOST)):
                raise Damaged(f"{name} has {str(value)[:40]!r} for {column}")
        if is_deep(run["recipe"]) or is_deep(run["options"]):
            raise Damaged(f"{name} has a recipe of too many levels")
    try:
        datetime.fromisoformat(content["frozen"])
    except ValueError as error:
        raise Damaged(f"{path} does not say when it was frozen, but {content['frozen'][:40]!r}") from error
    places = Counter(tuple(run[name] for name in PLACE) for run in content["runs"])
    place, times = places.most_common(1)[0]
    if times > 1:
        raise Damaged(f"{path} has {times} runs of {', '.join(map(str, place))} (data, model, arm, teacher set, seed)")
    try:
        limits.alpha(content["alpha"])
        for column, value in content["margins"].items():
            limits.margin(column, value)
    except AnalysisError as error:
        raise Damaged(f"{path}: {error}") from error
    return content


def _plain(value: Any) -> Any:
    """A value that JSON has: numpy numbers as Python's, NaN as null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not abs(value) < MOST else value
