"""Across data sets: Friedman's test, then pairwise Wilcoxon with Holm.

Not Nemenyi: its verdict on A and B changes when C joins. A block is a data set: networks on one data set are not
independent of each other, so their values are averaged. A value is the arm's mean over the (teacher set, seed) pairs
that all compared arms have; where a run failed there is no mean, and the typical run stands for it (the interquartile
mean, a failed run the worst).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference import ranks as by_rank
from analysis.inference import statistics
from analysis.records import metrics
from analysis.records.errors import AnalysisError
from analysis.records.outcomes import ended
from analysis.records.pairing import pair
from analysis.verdicts.notation import p_equals

if TYPE_CHECKING:
    import pandas as pd

LEAST = 6  # data sets: with fewer no p is below .05


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
    """Compare three or more arms over 6 or more data sets.

    Raises AnalysisError below that, and where no run has the metric.
    """
    import pandas as pd
    from scipy import stats

    metrics.require_measured(runs, [column])
    runs = ended(runs)
    groups = {key: block for key, block in runs.groupby(["data", "model"])}
    arms = arms or sorted(set(runs["arm"]).intersection(*(block["arm"] for block in groups.values())))
    rows: dict[str, list[pd.Series]] = {}
    for (data, _), block in groups.items():
        if set(arms) <= set(block["arm"]):
            matched = pair(block, dict.fromkeys(arms, 1.0), column).values
            if len(matched):
                whole = np.isfinite(matched.to_numpy()).all()
                rows.setdefault(data, []).append(matched.mean() if whole else matched.apply(by_rank.interquartile_mean))
    if len(rows) < LEAST or len(arms) < 3:
        raise AnalysisError(
            f"a test across data sets needs {LEAST} of them and 3 arms, here {len(rows)} and {len(arms)} "
            "(networks on one data set are averaged)"
        )
    values = pd.DataFrame({data: pd.concat(each, axis=1).mean(axis=1) for data, each in rows.items()}).T[arms]
    goodness = values * metrics.metric(column).sign
    ranks = (-goodness).rank(axis=1).mean().sort_values()
    overall = float(stats.friedmanchisquare(*(values[arm] for arm in arms)).pvalue)
    pairs = list(combinations(ranks.index, 2))
    d = [(goodness[a] - goodness[b]).fillna(0.0) for a, b in pairs]  # both failed: a tie
    p = [float(by_rank.signed_rank(x.to_numpy())) for x in d]
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
        ("better" if by_rank.signed_ranks(x).sum() > 0 else "worse")
        if q <= alpha and overall <= alpha
        else "inconclusive"
        for x, q in zip(d, pairwise["p_adjusted"], strict=True)
    ]
    return Blocks(values, ranks, overall, pairwise, _say(len(values), len(pairs), overall, floor, alpha))


def _say(count: int, pairs: int, overall: float, floor: float, alpha: float) -> str:
    if np.isnan(overall):
        return f"All arms are tied on each of {count} data sets."
    text = f"Friedman over {count} data sets: {p_equals(overall)}"
    text += ", the arms are not all alike." if overall <= alpha else ", no difference among the arms is established."
    if floor * pairs > alpha:
        enough = statistics.pairs_for_floor(alpha, pairs)
        text += f" {count} data sets cannot reach p < {alpha:g} for any of {pairs} pairs (Wilcoxon with Holm); {enough} would."
    return text
