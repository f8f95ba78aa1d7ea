"""The table of the regression gate."""

from __future__ import annotations

import math

from analysis.records import metrics
from analysis.report.tables.table import Table
from analysis.verdicts.check import Check
from analysis.verdicts.cost import COST_MARGINS


def gate_table(checks: list[Check], alpha: float) -> Table:
    """The checks as a Table; alpha: the level at which they were judged."""
    table = Table(
        "Regression gate",
        ["variant", "against", "metric", "n", f"difference [{100 * (1 - 2 * alpha):g} % CI]", "verdict", "why"],
    )
    for c in checks:
        if c.metric in COST_MARGINS:
            label, shown = c.metric, f"x {c.difference:.2f}"
        elif c.metric:
            m = metrics.metric(c.metric)
            label, shown = m.label, "-" if math.isnan(c.difference) else m.text(c.difference, True)
            if not math.isnan(c.low):
                shown += f" [{m.text(c.low, True)}, {m.text(c.high, True)}]"
        else:
            label, shown = "", ""
        why = "; ".join(filter(None, (c.words, c.remedy)))
        table.add([c.variant + " *" * bool(c.note), c.reference, label, str(c.n), shown, c.verdict, why])
    table.notes += dict.fromkeys(c.note for c in checks if c.note)
    return table
