"""A table: text by rows and columns, next to the hashes of the runs behind every row, so each number can be traced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from analysis.records.metrics import Metric

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Table:
    """title; column names; rows of cells; the run hashes behind each row; bold cells; notes below."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    runs: list[list[str]] = field(default_factory=list)
    bold: set[tuple[int, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, cells: list[str], runs: list[str] | tuple[str, ...] = ()) -> None:
        """Add a row; runs: the hashes behind it, in any order."""
        self.rows.append(cells)
        self.runs.append(sorted({str(run) for run in runs}))


def part(table: Table, columns: list[int]) -> Table:
    """The table with these of its columns."""
    bold = {(i, columns.index(j)) for i, j in table.bold if j in columns}
    rows = [[row[j] for j in columns] for row in table.rows]
    return replace(table, columns=[table.columns[j] for j in columns], rows=rows, bold=bold, notes=list(table.notes))


def mean_sd(values: np.ndarray, m: Metric, runs: int | None = None) -> str:
    """`79.17 ± 0.24`; without sd at one value, `-` at none. sd with ddof = 1. Of fewer values than `runs`, with their
    number: `79.17 ± 0.24 (n=5)`.
    """
    import numpy as np  # here: a command that prints its help would wait for it

    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return "-"
    text = m.text(values.mean())
    text += f" ± {m.text(values.std(ddof=1))}" if len(values) > 1 else ""
    return text if len(values) == (runs or len(values)) else f"{text} (n={len(values)})"


def best(means: dict[str, float], m: Metric) -> set[str]:
    """Whose mean is the best, as it is printed; nobody where all print alike. What has no mean takes no part."""
    printed = {name: m.text(mean) for name, mean in means.items() if mean == mean}
    if len(set(printed.values())) < 2:
        return set()
    first = printed[max(printed, key=lambda name: m.sign * means[name])]
    return {name for name, text in printed.items() if text == first}
