"""Across data sets x networks: Friedman's test, then pairwise Wilcoxon with Holm.

Not Nemenyi: its verdict on A and B changes when C joins. A block's value is the arm's mean over the (teacher
set, seed) pairs that all compared arms have.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from analysis.inference import statistics
from analysis.records import metrics
from analysis.records.errors import AnalysisError
from analysis.records.pairing import pair
from analysis.verdicts.notation import p_equals

if TYPE_CHECKING:
    import pandas as pd

LEAST = 5  # blocks


@dataclass(frozen=True)
class Blocks:
    """values[blocks, arms]; mean ranks (1 is best); Friedman's p; the pairwise table; all of it in words."""

    values: pd.DataFrame
    ranks: pd.Series
    friedman_p: float
    pairwise: pd.DataFrame
    words: str


def across_blocks(
    runs: pd.DataFrame, column: str = "nll", arms: list[str] | None = None, alpha: float = 0.05
) -> Blocks:
    """Compare three or more arms over 5 or more (data, model) blocks.

    Raises AnalysisError below that, and where no run has the metric.
    """
    import pandas as pd
    from scipy import stats

    metrics.require_measured(runs, [column])
    runs = runs[runs["status"] == "done"]
    groups = {key: block for key, block in runs.groupby(["data", "model"])}
    arms = arms or sorted(set(runs["arm"]).intersection(*(block["arm"] for block in groups.values())))
    rows = {}
    for key, block in groups.items():
        if set(arms) <= set(block["arm"]):
            matched = pair(block, dict.fromkeys(arms, 1.0), column).values
            if len(matched):
                rows[key] = matched.mean()
    if len(rows) < LEAST or len(arms) < 3:
        raise AnalysisError(
            f"a test across blocks needs {LEAST} blocks (data set x network) and 3 arms, here "
            f"{len(rows)} and {len(arms)}"
        )
    values = pd.DataFrame(rows).T[arms]
    goodness = values * metrics.metric(column).sign
    ranks = (-goodness).rank(axis=1).mean().sort_values()
    overall = float(stats.friedmanchisquare(*(values[arm] for arm in arms)).pvalue)
    pairs = list(combinations(ranks.index, 2))
    d = [goodness[a] - goodness[b] for a, b in pairs]
    p = [float(statistics.signed_rank(x.to_numpy())) for x in d]
    floor = statistics.smallest_p(len(values))
    pairwise = pd.DataFrame(
        {
            "variant": [a for a, _ in pairs],
            "reference": [b for _, b in pairs],
            "wins": [int((x > 0).sum()) for x in d],
            "blocks": len(values),
            "p": p,
            "p_adjusted": statistics.holm(p),
            "floor_adjusted": min(1.0, floor * len(pairs)),
        }
    )
    # Pairs are looked at only where Friedman's test says that some arm differs. A mean may point the other way than
    # the ranks that are tested.
    pairwise["verdict"] = [
        ("better" if statistics.signed_ranks(x).sum() > 0 else "worse")
        if q <= alpha and overall <= alpha
        else "inconclusive"
        for x, q in zip(d, pairwise["p_adjusted"], strict=True)
    ]
    return Blocks(values, ranks, overall, pairwise, _say(len(values), len(pairs), overall, floor, alpha))


def _say(count: int, pairs: int, overall: float, floor: float, alpha: float) -> str:
    text = f"Friedman over {count} blocks: {p_equals(overall)}"
    text += ", the arms are not all alike." if overall <= alpha else ", no difference among the arms is established."
    if floor * pairs > alpha:
        enough = statistics.pairs_for_floor(alpha, pairs)
        text += (
            f" {count} blocks cannot reach p < {alpha:g} for any of {pairs} pairs (Wilcoxon with Holm); {enough} would."
        )
    return text
