"""Runs that failed or collapsed, counted: the exact interval of a share, and the exact test of two on matched seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Share(NamedTuple):
    """count of n, and the Clopper-Pearson interval of the share behind it."""

    count: int
    n: int
    low: float
    high: float


def share(count: int, n: int, confidence: float = 0.95) -> Share:
    """The exact interval of a share of which `count` of n were seen; all of [0, 1] where nothing was."""
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, count, n - count + 1)) if count else 0.0
    high = float(stats.beta.isf(tail, count + 1, n - count)) if count < n else 1.0
    return Share(count, n, low, high)


def matched(variant: ArrayLike, reference: ArrayLike) -> float:
    """Exact two-sided p of McNemar's test: counts of bad runs [n] of two arms, one of each per seed.

    A seed that met several teacher sets is one unit: it says which arm had more bad runs in it.
    """
    d = np.asarray(variant, int) - np.asarray(reference, int)
    more, less = int((d > 0).sum()), int((d < 0).sum())
    return float(stats.binomtest(more, more + less).pvalue) if more + less else 1.0
