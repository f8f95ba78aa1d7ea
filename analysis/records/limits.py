"""Levels, margins and tolerances: the one door for numbers that decide a verdict, wherever they are given."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from analysis.records import metrics
from analysis.records.errors import AnalysisError
from analysis.records.texts import plain
from harness.store.face import Metrics
from harness.store.files import Damaged, check_shape

MOST = 1e9  # what is larger, or infinite, is no limit
# Sampled sign flips reach no p below 1e-5, exact ones with 32 seeds none below 5e-10, for a family too.
Alpha = Annotated[float, Meta(ge=1e-5, lt=0.5)]
Margin = Annotated[float, Meta(gt=0, lt=MOST)]
Seeds = Annotated[int, Meta(ge=2, lt=10**6)]
COLLAPSE = {"accuracy": Annotated[float, Meta(gt=0, le=1)], "barrier": Margin}
# Beyond these nothing would fail: a speed cannot be lost by more than all of it.
TOLERANCES = {"speed": Annotated[float, Meta(ge=0, lt=1)], "memory": Annotated[float, Meta(ge=0, le=10)]}


def alpha(value: Any) -> float:
    """An error level: not below what the tests can tell, below 0.5, where one is no better than a coin.

    Raises AnalysisError.
    """
    return _number(value, Alpha, "alpha must lie between 0.00001 and 0.5")


def margin(column: str, value: Any) -> float:
    """A margin of a metric, in its own unit: positive, and of a share less than all. Raises AnalysisError."""
    share = metrics.metric(column).scale == 100
    number = _number(value, Margin, f"the margin of {plain(column)} must be a positive number")
    if share and number >= 1:
        raise AnalysisError(f"the margin of {column} is a share, such as 0.01 for 1 %: {number:g} lets everything pass")
    return number


def outcome(column: str, value: float) -> float:
    """What somebody found for a metric, in the unit in which records have it. Raises AnalysisError."""
    m = metrics.metric(column)
    try:
        check_shape({m.column: value}, Metrics, column)
        fits = m.scale != 100 or 0 <= value <= 1
    except Damaged:
        fits = False
    if not fits:
        raise AnalysisError(f"{value:g} is no {plain(column)}: a share or a loss, as in records, such as 0.81 for 81 %")
    return value


def seeds(value: Any) -> int:
    """A number of seeds, at least two. Raises AnalysisError."""
    return _number(value, Seeds, "seeds must be their number, at least 2")


def collapse(name: str, value: Any) -> float:
    """What counts as collapse: a share of the teacher's accuracy, or a loss barrier. Raises AnalysisError."""
    if name not in COLLAPSE:
        raise AnalysisError(f"collapse knows {', '.join(COLLAPSE)}, not {plain(name)}")
    return _number(value, COLLAPSE[name], f"collapse: {name} must be a positive number (accuracy: at most 1)")


def tolerance(name: str, value: Any) -> float:
    """A tolerated loss of speed or growth of memory, relative. Raises AnalysisError."""
    bounds = "0 and 1" if name == "speed" else "0 and 10"
    return _number(value, TOLERANCES[name], f"the tolerance of {name} must lie between {bounds}")


def _number(value: Any, kind: Any, message: str) -> float:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise AnalysisError(f"{message}, not {plain(repr(value))[:40]}") from error
