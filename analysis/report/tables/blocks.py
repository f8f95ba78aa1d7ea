"""Tables of the comparison across data sets x networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.report.tables.table import Table
from analysis.verdicts.notation import probability

if TYPE_CHECKING:
    from analysis.verdicts.blocks import Blocks


def block_tables(found: Blocks) -> list[Table]:
    """Mean ranks and the pairwise tests as tables."""
    ranks = Table("Mean rank over data sets (1 is best)", ["arm", "mean rank"])
    for arm, rank in found.ranks.items():
        ranks.add([arm, f"{rank:.2f}"])
    pairs = Table("Pairwise Wilcoxon, Holm", ["comparison", "wins", "p", "p adj.", "floor adj.", "verdict"])
    for row in found.pairwise.itertuples():
        pairs.add(
            [f"{row.variant} - {row.reference}", f"{row.wins}/{row.blocks}", probability(row.p),
             probability(row.p_adjusted), probability(row.floor_adjusted), row.verdict]
        )  # fmt: skip
    return [ranks, pairs]
