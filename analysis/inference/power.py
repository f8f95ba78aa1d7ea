"""What the deciding test can find: the difference that n pairs would have shown, the pairs that one needs.

For normal differences. Their mean and sd are independent of their shape (what is left of them after both are
taken out), and in differences of one shape every test here finds what has a t above some value. So its power is
that of Student's t, with a critical value for each shape, averaged over shapes. The plain t has the same one for
all; the others' are computed from a fixed sample of shapes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from analysis.inference.statistics import SKEW_CAP, pairs_for_floor

WANTED = 0.8
MOST_SEEDS = 100  # what would need more of them is not foreseen as a number
SHAPES = 256
FLIPS = 2**12  # patterns of signs: all of them up to n = 12, a sample beyond
SAMPLED_UP_TO = 32  # pairs; beyond, what a test costs over the plain t is taken to fall as 1 / n


def power(effect: ArrayLike, n: int, alpha: float = 0.05, test: str = "guarded") -> NDArray:
    """Power of the two-sided test with n pairs for true d_z = `effect`."""
    effect = np.asarray(effect, float)
    if n < 2:
        return np.zeros_like(effect)
    critical = _critical(n, alpha, test)
    nc = np.abs(effect)[..., None] * math.sqrt(n)
    # The far tail underflows to NaN in scipy where it is 0 for every purpose.
    right = np.nan_to_num(stats.nct.sf(critical, n - 1, nc), nan=1.0)
    return (right + np.nan_to_num(stats.nct.cdf(-critical, n - 1, nc))).mean(-1)


def largest_sd(sd: float, n: int, confidence: float = 0.8) -> float:
    """The upper limit of the sd of normal differences of which n have this sd: the sd is an estimate too."""
    return sd * math.sqrt((n - 1) / stats.chi2.ppf(1 - confidence, n - 1)) if n > 1 else math.nan


def detectable(sd: float, n: int, alpha: float = 0.05, test: str = "guarded") -> float:
    """The true difference that the test finds in n pairs of this sd with 80 % power.

    NaN where it finds none, however large.
    """
    if n < pairs_for_floor(alpha, test=test):
        return math.nan
    return sd * _effect(n, alpha, "t") * _cost(n, alpha, test)


def pairs_needed(
    sd: float, difference: float, alpha: float = 0.05, test: str = "guarded", limit: int = 100_000
) -> int | None:
    """The pairs with which a true `difference` is found with 80 % power, and that the floor needs.

    None where more than `limit` would be needed, or where the sd is unknown.
    """
    if not math.isfinite(sd) or not difference:
        return None
    least = pairs_for_floor(alpha, test=test)
    if sd == 0:
        return least

    def enough(n: int, cost: float) -> bool:
        return power(abs(difference) / sd / cost, n, alpha, "t") >= WANTED

    if not enough(limit, _cost(limit, alpha, test)):
        return None
    # No test needs fewer pairs than the plain t, which is asked faster; nor many more.
    plain = bisect_left(range(limit), True, lo=least, key=lambda n: enough(n, 1.0))
    return next(n for n in range(plain, limit + 1) if enough(n, _cost(n, alpha, test)))


@cache
def _cost(n: int, alpha: float, test: str) -> float:
    """How much larger a difference the test needs than the plain t."""
    if test == "t":
        return 1.0
    if n > SAMPLED_UP_TO:
        return 1 + (_cost(SAMPLED_UP_TO, alpha, test) - 1) * SAMPLED_UP_TO / n
    return _effect(n, alpha, test) / _effect(n, alpha, "t")


@cache
def _effect(n: int, alpha: float, test: str) -> float:
    """The d_z that is found with 80 % power."""
    high = 1.0
    while power(high, n, alpha, test) < WANTED:
        high *= 2
    return float(optimize.brentq(lambda e: float(power(e, n, alpha, test)) - WANTED, 1e-9, high))


@cache
def _critical(n: int, alpha: float, test: str) -> NDArray:
    """The values of t above which differences of each shape are found, [shapes]."""
    plain = stats.t.ppf(1 - alpha / 2, n - 1)
    if test == "t":
        return np.array([plain])
    half = np.random.default_rng(n).normal(size=(SHAPES // 2, n))
    half -= half.mean(1, keepdims=True)
    half /= half.std(1, ddof=1, keepdims=True)
    shapes = np.concatenate([half, -half])  # mirrored, so that neither direction is easier
    flip = _critical_flip(shapes, alpha)
    return flip if test == "sign_flip" else np.maximum(flip, _critical_guard(shapes, plain))


def _critical_flip(shapes: NDArray, alpha: float) -> NDArray:
    """Of the sign-flip test, for shapes [S, n].

    A sum is still reached where a subset of the pairs is flipped whose mean is not above 0. So p is at most alpha
    where that holds for less than the share alpha / 2 of all subsets, and adding an effect lifts every mean by it.
    """
    n = shapes.shape[1]
    if 2**n <= FLIPS:
        subsets = np.arange(1, 2**n)[:, None] >> np.arange(n) & 1
    else:
        subsets = np.random.default_rng(n).integers(0, 2, (FLIPS - 1, n))
    allowed = math.floor(alpha / 2 * (len(subsets) + 1))  # to flip none is one of them
    if not allowed and 2**n <= FLIPS:
        return np.full(len(shapes), np.inf)
    allowed = max(allowed, 1)  # no more than the sample can tell
    means = shapes @ (subsets / np.maximum(subsets.sum(1, keepdims=True), 1)).T
    return -math.sqrt(n) * np.partition(means, allowed - 1)[:, allowed - 1]


def _critical_guard(shapes: NDArray, plain: float) -> NDArray:
    """Of `statistics.skew_guarded_t`, for shapes [S, n], where Student's critical value is `plain`."""
    n = shapes.shape[1]
    if n < 3:
        return np.full(len(shapes), plain)
    g = np.minimum(n * (shapes**3).sum(1) / ((n - 1) * (n - 2)), 0)
    # What mean / sd must reach: the first root of s + g min(s^2, cap) / 3 = aim, below or above the cap.
    aim = plain / math.sqrt(n) - g / (6 * n)
    above = aim - g * SKEW_CAP / 3
    inside = 1 + 4 / 3 * g * aim
    below = 2 * aim / (1 + np.sqrt(np.maximum(inside, 0)))
    return math.sqrt(n) * np.where((inside >= 0) & (below <= math.sqrt(SKEW_CAP)), below, above)
