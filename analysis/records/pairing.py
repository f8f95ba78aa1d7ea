"""Runs matched so that only the method differs.

Runs are paired on (data set, network, teacher set, seed). The unit of a test is a SEED: where a seed met
several teacher sets its differences are averaged over them first, because runs that share a seed share split,
initial weights and order and are not independent of each other. So n is the number of seeds, and the
conclusion is conditional on the teachers.

A run that failed is the worst outcome of its pair, an infinite value: tests by ranks allow that, means are over the
pairs that finished. A seed that did not meet every teacher set leaves, by name: its average would be over other
teachers than those of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.records import metrics
from analysis.records.outcomes import ended, failed

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Pairs:
    """A weighted difference of arms on matched runs.

    values: [pairs, arms], index (teacher_set, seed), +-inf for a run that failed; runs: the same shape, their hashes;
    weights: of the arms, e.g. {variant: 1, reference: -1}; dropped: what had no partner, in words.
    """

    values: pd.DataFrame
    runs: pd.DataFrame
    weights: dict[str, float]
    dropped: tuple[str, ...]

    @cached_property
    def differences(self) -> pd.Series:
        """[pairs], one per (teacher_set, seed)."""
        return _weighted(self.values, self.weights)

    @cached_property
    def by_seed(self) -> NDArray:
        """[n], one per seed: the unit of every test."""
        return self.differences.groupby(level="seed").mean().to_numpy()

    @property
    def by_set(self) -> pd.DataFrame:
        """[sets, seeds]."""
        return self.differences.unstack("seed")

    @property
    def finished(self) -> Pairs:
        """The pairs in which no run failed."""
        whole = np.isfinite(self.values.to_numpy()).all(1)
        return replace(self, values=self.values[whole], runs=self.runs[whole])

    def side(self, positive: bool) -> NDArray:
        """[pairs], one side of the difference: the weighted mean of the arms with positive (or negative) weight."""
        arms = {arm: abs(w) for arm, w in self.weights.items() if (w > 0) == positive}
        total = sum(arms.values())
        return np.asarray(sum(self.values[arm] * w for arm, w in arms.items()) / total)


def pair(runs: pd.DataFrame, weights: Mapping[str, float], column: str) -> Pairs:
    """Match the runs of one (data, model) block; drop those without a partner or the metric, and incomplete seeds.

    runs: rows of `analysis.load` for one block; column: the metric.
    """
    chosen = ended(runs)[lambda rows: rows["arm"].isin(list(weights))]
    worst = -np.inf * metrics.metric(column).sign
    chosen = chosen.assign(_value=np.where(failed(chosen, column), worst, chosen[column].astype(float)))
    keys, arms = ["teacher_set", "seed"], list(weights)
    wide = chosen.pivot(index=keys, columns="arm", values="_value").reindex(columns=arms).astype(float)
    hashes = chosen.pivot(index=keys, columns="arm", values="run").reindex(columns=arms)
    dropped = []
    for (number, seed), row in wide[wide.isna().any(axis=1)].iterrows():
        ran = hashes.loc[(number, seed)].notna()
        lacking = [f"{arm} has no {column if ran[arm] else 'finished run'}" for arm in arms if np.isnan(row[arm])]
        dropped.append(f"seed {seed}, teacher set {number}: {', '.join(lacking)}")
    wide = wide.dropna()
    tied = _weighted(wide, weights).isna()
    dropped += [f"seed {seed}, teacher set {number}: runs failed on both sides" for number, seed in wide.index[tied]]
    wide = wide[~tied]
    left = incomplete(wide.index.to_frame(index=False))
    dropped += [f"seed {seed}: {lacks}" for seed, lacks in left.items()]
    wide = wide[~wide.index.isin(list(left), level="seed")]
    split = _weighted(wide, weights).groupby(level="seed").mean().isna()
    undecided = list(split.index[split])
    dropped += [f"seed {seed}: runs failed on either side, with different teachers" for seed in undecided]
    wide = wide[~wide.index.isin(undecided, level="seed")]
    return Pairs(wide, hashes.loc[wide.index], dict(weights), tuple(dropped))


def _weighted(values: pd.DataFrame, weights: Mapping[str, float]) -> pd.Series:
    """The weighted sum of arms; NaN where runs on both sides failed."""
    return sum(values[arm] * weight for arm, weight in weights.items())


def incomplete(met: pd.DataFrame) -> dict[int, str]:
    """The seeds that lack a teacher set which others met, each with what it lacks, in words.

    met: rows with teacher_set and seed. Sets that share no seed are not crossed at all, and no seed lacks one.
    """
    had = met.groupby("seed")["teacher_set"].agg(set)
    if not len(had) or had.map(len).max() == 1:
        return {}
    sets = set.union(*had)
    lacking = had[had.map(len) < len(sets)]
    return {seed: f"it lacks teacher set {', '.join(map(str, sorted(sets - its)))}" for seed, its in lacking.items()}
