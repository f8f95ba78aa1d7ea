"""Are the tests what they say? Their error rates, power and coverage, measured by simulation (see `calibration`).

A family is four variants against one shared baseline (so their differences are correlated, as in an
ablation), or four independent differences where a scenario is about the differences themselves. "No
difference" means
    exchangeable   variants and baseline draw from one distribution: normal, skewed (exponential), or accuracy
                   on 1,000 images with a rate of success that differs between seeds. Their differences are
                   symmetric.
    equal means    the differences have mean 0 and are skewed, so the methods do differ, in shape: gamma with
                   skewness 1, exponential with skewness 2. No test that can find anything at these n is
                   exact here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.inference import ranks, resampling, statistics

ALPHA = 0.05
FAMILY = 4

Draw = Callable[[np.random.Generator, int, int, int], NDArray]


def _shared(runs: NDArray) -> NDArray:
    """[R, k + 1, n] runs, the first the baseline, to [R, k, n] differences."""
    return runs[:, 1:] - runs[:, :1]


def exchangeable_normal(generator: np.random.Generator, repeats: int, k: int, n: int) -> NDArray:
    return _shared(generator.normal(size=(repeats, k + 1, n)))


def exchangeable_skewed(generator: np.random.Generator, repeats: int, k: int, n: int) -> NDArray:
    return _shared(generator.exponential(size=(repeats, k + 1, n)))


def exchangeable_accuracy(generator: np.random.Generator, repeats: int, k: int, n: int) -> NDArray:
    rate = np.clip(generator.normal(0.95, 0.005, (repeats, 1, n)), 0, 1)  # a seed's own difficulty
    return _shared(generator.binomial(1000, np.broadcast_to(rate, (repeats, k + 1, n))) / 1000)


def skewness_one(generator: np.random.Generator, repeats: int, k: int, n: int) -> NDArray:
    return generator.gamma(4, size=(repeats, k, n)) - 4


def skewness_two(generator: np.random.Generator, repeats: int, k: int, n: int) -> NDArray:
    return generator.exponential(size=(repeats, k, n)) - 1


SCENARIOS: dict[str, Draw] = {
    "normal": exchangeable_normal,
    "skewed runs": exchangeable_skewed,
    "accuracy": exchangeable_accuracy,
    "skewness 1": skewness_one,
    "skewness 2": skewness_two,
}
PROMISED = ("normal", "skewed runs", "accuracy", "skewness 1")  # where the level must hold


def bound(repeats: int, alpha: float = ALPHA) -> float:
    """The largest share that Monte-Carlo error (3 standard errors) explains where the true one is alpha."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / repeats)


def claimed(
    d: NDArray, level: float, test: str = "guarded", alternative: statistics.Alternative = "two-sided"
) -> NDArray:
    """Whether the deciding test's p of d[..., n] is at most `level`; signs are flipped only where the rest allows it."""
    if test != "guarded" or np.isinf(d).any():
        return np.nan_to_num(statistics.decide(d, test, alternative), nan=1.0) <= level
    found = np.nan_to_num(statistics.skew_guarded_t(d, alternative), nan=0.0) <= level
    found[found] = statistics.sign_flip(d[found], alternative) <= level
    return found


def family_error(
    scenario: str,
    n: int,
    repeats: int,
    k: int = FAMILY,
    test: str = "guarded",
    seed: int = 0,
    alpha: float = ALPHA,
) -> float:
    """Share of families under no difference with at least one verdict of better or worse.

    Under Holm the first rejection needs p <= alpha / k, so a family errs where its smallest p does.
    """
    generator = np.random.default_rng([seed, n, k, sorted(SCENARIOS).index(scenario)])
    return float(claimed(SCENARIOS[scenario](generator, repeats, k, n), alpha / k, test).any(-1).mean())


def one_sided_error(skewness: float, n: int, repeats: int, seed: int = 0) -> float:
    """Share of 'not worse by more than the margin' where the difference IS the margin; skewness of either sign."""
    generator = np.random.default_rng([seed, n, int(10 * skewness + 50)])
    shape = 4 / skewness**2 if skewness else 0.0
    d = np.sign(skewness) * (generator.gamma(shape, size=(repeats, n)) - shape) if shape else None
    return float(claimed(generator.normal(size=(repeats, n)) if d is None else d, ALPHA, "guarded", "greater").mean())


def found(effect: float, n: int, repeats: int, k: int = 1, test: str = "guarded", seed: int = 0) -> float:
    """Power: share of normal differences with d_z = effect that are found as the first of a family of k."""
    d = np.random.default_rng([seed, n, 1]).normal(effect, 1, (repeats, n))
    if test == "rank":
        return float((ranks.signed_rank(d) <= ALPHA / k).mean())
    return float(claimed(d, ALPHA / k, test).mean())


def false_equivalence(n: int, repeats: int, test: str = "guarded", seed: int = 0) -> float:
    """Share of 'equivalent' where the true difference is the margin itself (d_z = 1 there)."""
    d = np.random.default_rng([seed, n, 2]).normal(1, 1, (repeats, n))
    return float((claimed(d + 1, ALPHA, test, "greater") & claimed(1 - d, ALPHA, test, "greater")).mean())


def crossed_error(seeds: int, sets: int, repeats: int, by_seed: bool, seed: int = 0) -> float:
    """Error of the test where a seed moves the difference alike in all teacher sets (half of the variance).

    by_seed: average over sets first, as `pairing` does; otherwise every pair of runs counts as one unit.
    """
    generator = np.random.default_rng([seed, seeds, sets])
    d = generator.normal(size=(repeats, 1, seeds)) + generator.normal(size=(repeats, sets, seeds))
    return float(claimed(d.mean(1) if by_seed else d.reshape(repeats, -1), ALPHA).mean())


def coverage(kind: str, n: int, repeats: int, seed: int = 0) -> float:
    """Coverage of the 95 % t interval under a scenario; of a percentile bootstrap (`bootstrap`), and of the typical run's
    exact interval (`typical`; 0 where n is too small for one), under the normal one.
    """
    generator = np.random.default_rng([seed, n, 3])
    scenario = {"bootstrap": "normal", "typical": "normal"}.get(kind, kind)
    d = SCENARIOS[scenario](generator, repeats, 1, n)[:, 0]
    if kind == "bootstrap":
        ends = [resampling.images(row, draws=1000, seed=i) for i, row in enumerate(d)]
        return float(np.mean([e.low <= 0 <= e.high for e in ends]))
    t = ranks.typical(d) if kind == "typical" else statistics.paired_t(d)
    return float(((t.low <= 0) & (t.high >= 0)).mean())
