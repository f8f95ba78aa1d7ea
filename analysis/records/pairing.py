"""Runs matched so that only the method differs.

Runs are paired on (data set, network, teacher set, seed). The unit of a test is a SEED: where a seed met
several teacher sets its differences are averaged over them first, because runs that share a seed share split,
initial weights and order and are not independent of each other. So n is the number of seeds, and the
conclusion is conditional on the teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pairs:
    """A weighted difference of arms on matched runs.

    values: [pairs, arms], index (teacher_set, seed); runs: the same shape, their hashes; weights: of the
    arms, e.g. {variant: 1, reference: -1}; dropped: what had no partner, in words.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    weights: dict[str, float]
    dropped: tuple[str, ...]

    @property
    def differences(self) -> pd.Series:
        """[pairs], one per (teacher_set, seed)."""
        return sum(self.values[arm] * weight for arm, weight in self.weights.items())

    @property
    def by_seed(self) -> NDArray:
        """[n], one per seed: the unit of every test."""
        return self.differences.groupby(level="seed").mean().to_numpy()

    @property
    def by_set(self) -> pd.DataFrame:
        """[sets, seeds], NaN where a set did not meet a seed."""
        return self.differences.unstack("seed")

    def side(self, positive: bool) -> NDArray:
        """[pairs], one side of the difference: the weighted mean of the arms with positive (or negative) weight."""
        arms = {arm: abs(w) for arm, w in self.weights.items() if (w > 0) == positive}
        total = sum(arms.values())
        return np.asarray(sum(self.values[arm] * w for arm, w in arms.items()) / total)


def pair(runs: pd.DataFrame, weights: Mapping[str, float], column: str) -> Pairs:
    """Match the done runs of one (data, model) block; drop those without a partner or the metric.

    runs: rows of `analysis.load` for one block; column: the metric.
    """
    chosen = runs[(runs["status"] == "done") & runs["arm"].isin(list(weights))]
    keys = ["teacher_set", "seed"]
    wide = chosen.pivot(index=keys, columns="arm", values=column).reindex(columns=list(weights)).astype(float)
    hashes = chosen.pivot(index=keys, columns="arm", values="run").reindex(columns=list(weights))
    ran = hashes.notna()
    whole = np.isfinite(wide.to_numpy()).all(1) if len(wide) else np.zeros(0, bool)
    dropped = []
    for (number, seed), row in wide[~whole].iterrows():
        lacking = [
            f"{arm} has {'no finite ' + column if ran.loc[(number, seed), arm] else 'no finished run'}"
            for arm in weights
            if not np.isfinite(row[arm])
        ]
        dropped.append(f"seed {seed}, teacher set {number}: {', '.join(lacking)}")
    return Pairs(wide[whole], hashes[whole], dict(weights), tuple(dropped))
