"""The typical run: the exact signed-rank test, and the estimate and interval that belong to it.

Ranks take a run that failed as the worst outcome there is (a difference of +-inf), and one run that is far from all
others for no more than the last of them. What they speak of is the typical run, not the mean: where a method gains a
little in most runs and loses all in a few, ranks say better.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

EXACT_RANKS_UP_TO = 200  # pairs; beyond, the normal limit


class Typical(NamedTuple):
    """Hodges-Lehmann estimate and its exact interval, each of the leading shape; NaN where n is too small for one."""

    estimate: NDArray
    low: NDArray
    high: NDArray


def signed_ranks(d: ArrayLike) -> NDArray:
    """The signed ranks of d[n], ties shared, zeros dropped; their sum is what Wilcoxon's test is about."""
    d = np.asarray(d, float)
    kept = d[d != 0]
    return np.sign(kept) * stats.rankdata(np.abs(kept))


def signed_rank(d: ArrayLike, alternative: str = "two-sided") -> NDArray:
    """Exact p of Wilcoxon's signed-rank test, ties shared; 1 where all of d[..., n] are 0, NaN where one is NaN."""
    d = np.asarray(d, float)
    rows = d.reshape(-1, d.shape[-1])
    p = np.empty(len(rows))
    sizes = np.sort(np.abs(rows), -1)
    plain = (
        (sizes[:, :1] > 0).all(-1) & (sizes[:, 1:] > sizes[:, :-1]).all(-1)
        if d.shape[-1]
        else np.zeros(len(rows), bool)
    )
    if plain.any():  # no zeros, no ties: one distribution for all
        ranks = np.abs(rows[plain]).argsort(-1).argsort(-1) + 1
        p[plain] = _p((ranks * np.sign(rows[plain])).sum(-1), tuple(range(1, d.shape[-1] + 1)), alternative)
    for i in np.flatnonzero(~plain):
        ranks = signed_ranks(rows[i])
        missing = np.isnan(rows[i]).any()
        p[i] = math.nan if missing else _p(ranks.sum(), tuple(sorted(np.abs(ranks))), alternative)
    return p.reshape(d.shape[:-1])


def typical(d: ArrayLike, confidence: float = 0.95) -> Typical:
    """The median of all means of two of d[..., n] (each with itself too), between the ends that the exact signed-rank
    test does not refuse. An infinite end: so many runs failed that the worst is within reach.
    """
    d = np.asarray(d, float)
    n = d.shape[-1]
    if not n:
        nothing = np.full(d.shape[:-1], np.nan)
        return Typical(nothing, nothing, nothing)
    i, j = np.triu_indices(n)
    with np.errstate(invalid="ignore"):
        means = d[..., i] / 2 + d[..., j] / 2
        means[np.isnan(means) & ~(np.isnan(d[..., i]) | np.isnan(d[..., j]))] = 0.0  # the worst of either side
        means.sort(-1)
        estimate = np.median(means, -1)
    cut = least_sum(n, (1 - confidence) / 2)
    if cut < 0:
        return Typical(estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan))
    return Typical(estimate, means[..., cut], means[..., -1 - cut])


def least_sum(n: int, tail: float) -> int:
    """The largest sum of positive ranks 1..n whose lower tail is at most `tail`; -1 where none is."""
    below = np.cumsum(_counts(tuple(range(1, n + 1)))) / 2.0**n  # of doubled sums
    return int(np.searchsorted(below[::2], tail * (1 + 1e-9), side="right")) - 1


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half of values [n]: the typical run, told apart from how good the best ones are."""
    return float(stats.trim_mean(np.asarray(values, float), 0.25)) if len(values) else math.nan


def _p(total: NDArray, sizes: tuple[float, ...], alternative: str) -> NDArray:
    """p of sums of signed ranks whose sizes are given."""
    if not sizes:
        return np.ones_like(total)
    signed = {"two-sided": np.abs(total), "greater": total, "less": -np.asarray(total)}[alternative]
    if len(sizes) > EXACT_RANKS_UP_TO:
        upper = stats.norm.sf(signed / math.sqrt(sum(size * size for size in sizes)))
    else:
        # Positive ranks sum to (all + signed) / 2; counts are of doubled sums, as shared ranks are halves.
        place = np.rint(sum(sizes) + signed).astype(int)
        upper = _upper(sizes)[place]
    return np.minimum(1.0, 2 * upper) if alternative == "two-sided" else upper


@cache
def _upper(sizes: tuple[float, ...]) -> NDArray:
    """P(doubled sum of positive ranks >= index)."""
    return np.cumsum(_counts(sizes)[::-1])[::-1] / 2.0 ** len(sizes)


@cache
def _counts(sizes: tuple[float, ...]) -> NDArray:
    """How many of the 2**n patterns of signs have each doubled sum of positive ranks."""
    counts = np.ones(1)
    for step in (round(2 * size) for size in sizes):
        longer = np.zeros(len(counts) + step)
        longer[: len(counts)] = counts
        longer[step:] += counts
        counts = longer
    return counts
