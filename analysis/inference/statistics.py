"""Tests and intervals for paired differences, their limits, and the correction for many of them.

Functions are pure and take arrays whose LAST axis is the sample: `d[..., n]` holds n paired differences
(variant minus reference), one per independent unit. Leading axes are independent problems, so a simulation is
one call.

The deciding test is `guarded`: the larger of two p-values, so a finding must pass both.
  1. The exact sign-flip test. If two methods do not differ, exchanging their labels within a pair changes
     nothing, hence every difference is symmetric about 0 and this test is exact at every n, whatever the
     shape of the noise.
  2. Student's paired t with a correction for skewness that only ever speaks against the finding (after
     Johnson, JASA 73, 1978). It holds the error down where means are equal but shapes are not, and it looks
     at sizes, not at signs alone.
`CALIBRATION.md` has the measured error rates of this rule and of the plain t test.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Alternative = Literal["two-sided", "greater", "less"]
EXACT_UP_TO = 32  # sign flips are counted exactly up to this n (2**31 patterns in two halves of 2**16), then sampled
SAMPLED_FLIPS = 100_000
SKEW_CAP = 1.5  # see skew_guarded_t
_FLAT = 1e-12  # a spread below this share of the largest difference is rounding, not variation


class PairedT(NamedTuple):
    """Student's paired t: every field has the leading shape of the differences."""

    mean: NDArray
    sd: NDArray
    t: NDArray
    p: NDArray
    low: NDArray
    high: NDArray
    df: int


def _moments(d: NDArray) -> tuple[NDArray, NDArray, int]:
    """Mean and sd (ddof = 1) over the last axis; an sd of mere rounding is 0; NaN at n < 2."""
    n = d.shape[-1]
    mean = d.mean(-1) if n else np.full(d.shape[:-1], np.nan)
    if n < 2:
        return mean, np.full(d.shape[:-1], np.nan), n
    sd = d.std(-1, ddof=1)
    return mean, np.where(sd <= _FLAT * np.abs(d).max(-1), 0.0, sd), n


def _tail(t: NDArray, df: int, alternative: Alternative) -> NDArray:
    if alternative == "two-sided":
        return 2 * stats.t.sf(np.abs(t), df)
    return stats.t.sf(t if alternative == "greater" else -t, df)


def paired_t(d: ArrayLike, confidence: float = 0.95, alternative: Alternative = "two-sided") -> PairedT:
    """Paired t test of mean 0 with its two-sided interval.

    Without spread (all differences equal) t has no meaning: p is NaN, or 1 where all differences are 0. p and
    the interval are NaN at n = 1.
    """
    d = np.asarray(d, float)
    mean, sd, n = _moments(d)
    if n < 2:
        nan = np.full_like(mean, np.nan)
        return PairedT(mean, sd, nan, nan, nan, nan, max(n - 1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / (sd / math.sqrt(n))
    p = np.where(sd == 0, np.where(mean == 0, 1.0, np.nan), _tail(t, n - 1, alternative))
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * sd / math.sqrt(n)
    return PairedT(mean, sd, t, p, mean - half, mean + half, n - 1)


def skew_guarded_t(d: ArrayLike, alternative: Alternative = "two-sided") -> NDArray:
    """p of the paired t after a correction for skewness that can only make it larger.

    Johnson's modified t adds g/(6n) + g S^2/3 to S = mean/sd, g being the sample skewness. Two changes keep
    it honest at small n: it counts only where it moves S towards 0 (a sample of one long tail pointing away
    from its mean is weaker evidence than it looks; the converse is never believed), and S^2 is capped at 1.5,
    since beyond that the quadratic term could turn an overwhelming effect into none; 1.5 is the least that
    keeps families of four at their level for differences of skewness 1 (see CALIBRATION.md). Needs n >= 3 to
    see skewness; below, the plain t.
    """
    d = np.asarray(d, float)
    mean, sd, n = _moments(d)
    plain = paired_t(d, alternative=alternative).p
    if n < 3:
        return plain
    with np.errstate(divide="ignore", invalid="ignore"):
        s = mean / sd
        centred = d - mean[..., None]
        g = n * (centred**3).sum(-1) / ((n - 1) * (n - 2)) / sd**3
        g = np.where(g * s < 0, g, 0.0)
        corrected = s + g * np.minimum(s * s, SKEW_CAP) / 3 + g / (6 * n)
        corrected = np.where(corrected * s > 0, corrected, 0.0)
        return np.where(sd == 0, plain, np.fmax(plain, _tail(math.sqrt(n) * corrected, n - 1, alternative)))


def _half_sums(d: NDArray) -> NDArray:
    """All 2**len(d) sums of +-d."""
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _flip_one(d: NDArray, alternative: Alternative) -> float:
    n = len(d)
    if n == 0 or np.isnan(d).any():
        return math.nan
    observed = float(d.sum())
    slack = 1e-9 * float(np.abs(d).sum())  # equal sums reached in another order count as equal
    if alternative == "less":
        observed, d = -observed, -d
    if n > EXACT_UP_TO:
        signs = np.random.default_rng(n).integers(0, 2, (SAMPLED_FLIPS, n), dtype=np.int8) * 2 - 1
        sums = signs @ d
        reached = np.abs(sums) >= abs(observed) - slack if alternative == "two-sided" else sums >= observed - slack
        return float((reached.sum() + 1) / (SAMPLED_FLIPS + 1))
    # Meet in the middle: every pattern is a sum from either half, so counting needs one sorted half only.
    left, right = _half_sums(d[: n // 2]), np.sort(_half_sums(d[n // 2 :]))
    threshold = abs(observed) if alternative == "two-sided" else observed
    above = (len(right) - np.searchsorted(right, threshold - slack - left, side="left")).sum()
    if alternative != "two-sided":
        return float(above / 2.0**n)
    if threshold <= slack:
        return 1.0
    return float(min(1.0, 2 * above / 2.0**n))  # flipping every sign mirrors the distribution


def sign_flip(d: ArrayLike, alternative: Alternative = "two-sided") -> NDArray:
    """p of the sign-flip test of symmetry about 0: exact up to n = 32, 100,000 fixed draws beyond."""
    d = np.asarray(d, float)
    flat = d.reshape(-1, d.shape[-1])
    return np.array([_flip_one(row, alternative) for row in flat]).reshape(d.shape[:-1])


def signed_ranks(d: ArrayLike) -> NDArray:
    """The signed ranks of d[n], ties shared, zeros dropped; their sum is what Wilcoxon's test is about."""
    d = np.asarray(d, float)
    kept = d[d != 0]
    return np.sign(kept) * stats.rankdata(np.abs(kept))


def signed_rank(d: ArrayLike) -> NDArray:
    """Exact two-sided Wilcoxon signed-rank p: a sign flip of the signed ranks; 1 where all differences are 0."""
    d = np.asarray(d, float)
    rows = [
        _flip_one(ranks, "two-sided") if len(ranks := signed_ranks(row)) else 1.0 for row in d.reshape(-1, d.shape[-1])
    ]
    return np.array(rows).reshape(d.shape[:-1])


def guarded(d: ArrayLike, alternative: Alternative = "two-sided") -> NDArray:
    """p of the deciding test: the larger of the exact sign flip and the skew-guarded t."""
    return np.fmax(sign_flip(d, alternative), skew_guarded_t(d, alternative))


def decide(d: ArrayLike, test: str = "guarded", alternative: Alternative = "two-sided") -> NDArray:
    """p by the named deciding test, `guarded`, `sign_flip` or `t`."""
    tests = {"guarded": guarded, "sign_flip": sign_flip, "t": lambda d, a: paired_t(d, alternative=a).p}
    if test not in tests:
        raise ValueError(f"unknown test {test!r}: choose one of {', '.join(tests)}")
    return tests[test](d, alternative)


def smallest_p(n: int, test: str = "guarded", zeros: int = 0, sides: int = 2) -> float:
    """The smallest p the test can reach with n pairs, `zeros` of which are ties that no flip changes.

    The t test has no floor (0), as it pays with the assumption of normal differences; from 2 pairs on.
    """
    if test == "t":
        return 0.0 if n > 1 else 1.0
    return min(1.0, sides * 2.0 ** (zeros - n))


def pairs_for_floor(alpha: float, family: int = 1, test: str = "guarded", sides: int = 2) -> int:
    """The fewest pairs with which the test can reach alpha as the first of a family under Holm."""
    n = 2
    while smallest_p(n, test, sides=sides) > alpha / family:
        n += 1
    return n


def hedges(d: ArrayLike) -> NDArray:
    """d_z = mean/sd of the differences, with Hedges' exact small-sample correction (NaN without spread)."""
    mean, sd, n = _moments(np.asarray(d, float))
    if n < 3:
        return np.full_like(mean, np.nan)
    df = n - 1
    log_j = special.gammaln(df / 2) - special.gammaln((df - 1) / 2) - 0.5 * math.log(df / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sd == 0, np.nan, mean / sd * math.exp(log_j))


def superiority(d: ArrayLike) -> NDArray:
    """P(A > B): the share of pairs in which the difference is positive, ties counted half."""
    d = np.asarray(d, float)
    return (d > 0).mean(-1) + 0.5 * (d == 0).mean(-1)


def equivalence(d: ArrayLike, margin: float, test: str = "guarded") -> NDArray:
    """p of two one-sided tests (TOST): the larger p of 'above -margin' and 'below +margin'."""
    d = np.asarray(d, float)
    return np.fmax(noninferiority(d, margin, test), noninferiority(-d, margin, test))


def noninferiority(d: ArrayLike, margin: float, test: str = "guarded") -> NDArray:
    """One-sided p of 'the mean difference lies above -margin' (differences signed so that more is better)."""
    return decide(np.asarray(d, float) + margin, test, "greater")


def holm(p: ArrayLike) -> NDArray:
    """Holm's step-down adjusted p-values, shape [k]; NaN (no test) stays NaN and does not count."""
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    k = len(order)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (k - np.arange(k)))) if k else []
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> NDArray:
    """Benjamini-Hochberg adjusted p-values (scipy's), shape [k]; NaN stays NaN and does not count."""
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted
