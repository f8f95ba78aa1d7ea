"""The metrics that tables and tests know: their names, their direction, and how they are printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.records.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Metric:
    """A quantity of a run. `column` in the table of runs; `scale` and `digits` only for printing."""

    column: str
    label: str
    higher: bool
    scale: float = 1.0
    digits: int = 3

    @property
    def sign(self) -> int:
        """+1 where more is better, -1 where less is."""
        return 1 if self.higher else -1

    def text(self, value: float, plus: bool = False) -> str:
        """The value as printed, in the metric's printed unit."""
        return f"{value * self.scale:{'+' if plus else ''}.{self.digits}f}"


_KNOWN = (
    Metric("acc", "ACC %", True, 100, 2),
    Metric("nll", "NLL", False, digits=4),
    Metric("brier", "Brier", False, digits=4),
    Metric("ece", "ECE", False, digits=4),
    Metric("nll_ts", "NLL_ts", False, digits=4),
    Metric("ece_ts", "ECE_ts", False, digits=4),
    Metric("aurc", "AURC", False, digits=4),
    Metric("dee", "DEE", True, digits=2),
    Metric("fidelity_agreement", "Agreement with ensemble %", True, 100, 2),
    Metric("fidelity_kl", "KL from ensemble", False, digits=4),
    Metric("barrier", "Loss barrier", False, digits=4),
    Metric("barrier_bn", "Loss barrier (BN re-estimated)", False, digits=4),
    Metric("collapsed", "Collapsed %", False, 100, 1),  # by the study's rule, see `outcomes`
)
MAIN = ("acc", "nll", "brier", "ece", "nll_ts", "ece_ts")

# Used by the regression gate where nobody declared a margin; a study's own margins come first.
GATE_MARGINS = {"acc": 0.01, "nll": 0.03}


def metric(column: str) -> Metric:
    """The metric of a column: known by name, else judged by its parts (`shift_nll`, `ood_svhn_auroc_entropy`)."""
    for known in _KNOWN:
        if known.column == column:
            return known
    for known in _KNOWN:
        if column.endswith("_" + known.column):
            prefix = column[: -len(known.column) - 1].replace("_", " ")
            return Metric(column, f"{known.label} ({prefix})", known.higher, known.scale, known.digits)
    if "auroc" in column:
        return Metric(column, column.replace("_", " ").replace("auroc", "AUROC"), True, 100, 2)
    if "fpr95" in column:
        return Metric(column, column.replace("_", " ").replace("fpr95", "FPR95"), False, 100, 2)
    if any(word in column for word in ("kl", "loss", "error")):
        return Metric(column, column.replace("_", " "), False, digits=4)
    known = ", ".join(m.column for m in _KNOWN)
    raise AnalysisError(f"no metric named {column!r}: known are {known}, shift_*, ood_*")


def is_known(column: str) -> bool:
    """Whether a column is a metric, and which way is better."""
    try:
        metric(column)
    except AnalysisError:
        return False
    return True


def present(columns: list[str], wanted: tuple[str, ...] | None = None) -> list[Metric]:
    """The metrics among a table's columns: those wanted, else the main ones and then all others."""
    if wanted:
        return [metric(name) for name in wanted]
    extra = [m.column for m in _KNOWN if m.column not in MAIN]
    extra += [c for c in columns if c.startswith(("shift_", "ood_")) and c != "shift_source" and is_known(c)]
    return [metric(name) for name in (*MAIN, *extra) if name in columns]


def require_measured(runs: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise AnalysisError for a metric that nobody knows, or that no finished run has."""
    done = runs[runs["status"] == "done"]
    names = [metric(column).column for column in columns]
    absent = [name for name in names if name not in done or not done[name].notna().any()]
    if absent:
        raise AnalysisError(f"no run has measured {', '.join(absent)}")
