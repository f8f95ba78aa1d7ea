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

A run that failed is a difference of +-inf: there is no mean then, and the signed-rank test decides, which takes it as
the worst of its pair (`ranks`).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from analysis.inference.ranks import signed_rank

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


def prediction(values: ArrayLike, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the mean of `count` further values lies, by those that are known [n]; NaN with fewer than two.

    The t interval for a future mean (Hahn and Meeker 1991, section 4.7): both means vary, ours and that of the others.
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) * math.sqrt(1 / n + 1 / count)
    return float(values.mean() - half), float(values.mean() + half)


def skew_guarded_t(d: ArrayLike, alternative: Alternative = "two-sided") -> NDArray:
    """p of the paired t after a correction for skewness that can only make it larger.

    Johnson's modified t adds g/(6n) + g S^2/3 to S = mean/sd, g being the sample skewness. Two changes keep
    it honest at small n: it counts only where it moves S towards 0 (a sample of one long tail pointing away
    from its mean is weaker evidence than it looks; the converse is never believed), and S^2 is capped at 1.5,
    since beyond that the quadratic term could turn an overwhelming effect into none; 1.5 is the least that
    keeps families of four at their level for differences of skewness 1 (see CALIBRATION.md). A difference that is
    larger by the same amount in every pair is never weaker evidence: of all smaller ones that of the strongest counts,
    where the quadratic term would turn back. Needs n >= 3 to see skewness; below, the plain t.
    """
    d = np.asarray(d, float)
    mean, sd, n = _moments(d)
    plain = paired_t(d, alternative=alternative).p
    if n < 3:
        return plain
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.abs(mean) / sd
        centred = d - mean[..., None]
        g = n * (centred**3).sum(-1) / ((n - 1) * (n - 2)) / sd**3
        against = np.where(g * mean < 0, np.abs(g), 0.0)
        peak = np.minimum(s, np.minimum(1.5 / against, math.sqrt(SKEW_CAP)))  # of the quadratic, up to here
        corrected = np.maximum(_lowered(s, against), _lowered(peak, against)) - against / (6 * n)
        corrected = np.copysign(np.maximum(corrected, 0.0), mean)
        return np.where(sd == 0, plain, np.fmax(plain, _tail(math.sqrt(n) * corrected, n - 1, alternative)))


def _lowered(s: NDArray, against: NDArray) -> NDArray:
    return s - against * np.minimum(s * s, SKEW_CAP) / 3


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


def guarded(d: ArrayLike, alternative: Alternative = "two-sided") -> NDArray:
    """p of the deciding test: the larger of the exact sign flip and the skew-guarded t."""
    return np.fmax(sign_flip(d, alternative), skew_guarded_t(d, alternative))


def decide(d: ArrayLike, test: str = "guarded", alternative: Alternative = "two-sided") -> NDArray:
    """p by the named deciding test, `guarded`, `sign_flip` or `t`; by the signed-rank test where a difference is infinite.

    Raises ValueError for a test that is none.
    """
    tests = {"guarded": guarded, "sign_flip": sign_flip, "t": lambda d, a: paired_t(d, alternative=a).p}
    if test not in tests:
        raise ValueError(f"unknown test {test!r}: choose one of {', '.join(tests)}")
    d = np.asarray(d, float)
    failed = np.isinf(d).any(-1)
    if not failed.any():
        return tests[test](d, alternative)
    p = np.array(tests[test](np.where(failed[..., None], 0.0, d), alternative))
    p[failed] = signed_rank(d[failed], alternative)
    return p


def smallest_p(n: int, test: str = "guarded", zeros: int = 0, sides: int = 2) -> float:
    """The smallest p the test can reach with n pairs, `zeros` of which are ties that no flip changes.

    The t test has no floor (0), as it pays with the assumption of normal differences; from 2 pairs on. Where sign flips
    are sampled, the sampling has one.
    """
    if test == "t":
        return 0.0 if n > 1 else 1.0
    return min(1.0, max(sides * 2.0 ** (zeros - n), 1 / (SAMPLED_FLIPS + 1) if n > EXACT_UP_TO else 0.0))


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


def holm(p: ArrayLike, size: int = 0) -> NDArray:
    """Holm's step-down adjusted p-values, shape [k]; NaN (no test) stays NaN and does not count.

    size: of the family as it was declared, where not all of it is here yet.
    """
    p = np.asarray(p, float)
    return holm_either(p, np.full_like(p, np.nan), size)[0]


def holm_either(p: ArrayLike, other: ArrayLike, size: int = 0) -> tuple[NDArray, NDArray]:
    """Adjusted p [k] of a difference and of equivalence, so that a false claim of either kind stays at one level.

    Of the two hypotheses of a comparison (no difference; one as large as the margin) at most one is true, so they share
    a place; it is free for the others once both have fallen (Shaffer 1986). With no second p it is Holm's procedure. Two
    procedures side by side would err up to .08.
    """
    both = np.array([p, other], float)
    adjusted = np.full_like(both, np.nan)
    larger = np.fmax(*both)
    fallen = np.sort(larger[~np.isnan(larger)])
    left = max(size, len(fallen)) - np.arange(len(fallen))
    reached = np.concatenate([[0.0], np.maximum.accumulate(fallen * left)])[: len(fallen)]
    if len(fallen):
        steps = np.maximum(both[..., None] * left, reached)  # at which level each is claimed, were so many places free
        adjusted = np.minimum(1.0, steps.min(-1))
    return adjusted[0], adjusted[1]


def benjamini_hochberg(p: ArrayLike) -> NDArray:
    """Benjamini-Hochberg adjusted p-values (scipy's), shape [k]; NaN stays NaN and does not count."""
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted
