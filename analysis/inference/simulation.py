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

from analysis.inference import resampling, statistics

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
    d = SCENARIOS[scenario](generator, repeats, k, n)
    p = statistics.decide(d, test)
    return float((np.nan_to_num(p, nan=1.0).min(-1) <= alpha / k).mean())


def found(effect: float, n: int, repeats: int, k: int = 1, test: str = "guarded", seed: int = 0) -> float:
    """Power: share of normal differences with d_z = effect that are found as the first of a family of k."""
    d = np.random.default_rng([seed, n, 1]).normal(effect, 1, (repeats, n))
    return float((np.nan_to_num(statistics.decide(d, test), nan=1.0) <= ALPHA / k).mean())


def false_equivalence(n: int, repeats: int, test: str = "guarded", seed: int = 0) -> float:
    """Share of 'equivalent' where the true difference is the margin itself (d_z = 1 there)."""
    d = np.random.default_rng([seed, n, 2]).normal(1, 1, (repeats, n))
    return float((np.nan_to_num(statistics.equivalence(d, 1.0, test), nan=1.0) <= ALPHA).mean())


def crossed_error(seeds: int, sets: int, repeats: int, by_seed: bool, seed: int = 0) -> float:
    """Error of the test where a seed moves the difference alike in all teacher sets (half of the variance).

    by_seed: average over sets first, as `pairing` does; otherwise every pair of runs counts as one unit.
    """
    generator = np.random.default_rng([seed, seeds, sets])
    d = generator.normal(size=(repeats, 1, seeds)) + generator.normal(size=(repeats, sets, seeds))
    unit = d.mean(1) if by_seed else d.reshape(repeats, -1)
    return float((statistics.guarded(unit) <= ALPHA).mean())


def coverage(kind: str, n: int, repeats: int, seed: int = 0) -> float:
    """Coverage of the 95 % t interval under a scenario, or of a percentile bootstrap (`bootstrap`)."""
    generator = np.random.default_rng([seed, n, 3])
    scenario = {"bootstrap": "normal"}.get(kind, kind)
    d = SCENARIOS[scenario](generator, repeats, 1, n)[:, 0]
    if kind == "bootstrap":
        ends = [resampling.images(row, draws=1000, seed=i) for i, row in enumerate(d)]
        return float(np.mean([e.low <= 0 <= e.high for e in ends]))
    t = statistics.paired_t(d)
    return float(((t.low <= 0) & (t.high >= 0)).mean())


def hierarchical_coverage(
    sets: int, seeds: int, repeats: int, spread: float, shared: float = 0.0, seed: int = 0
) -> float:
    """Coverage of the hierarchical interval for the mean over ALL teachers and seeds.

    spread: sd between teacher sets over sd between runs; shared: that of what a seed does alike in all sets.
    """
    generator = np.random.default_rng([seed, sets, seeds])
    d = spread * generator.normal(size=(repeats, sets, 1)) + generator.normal(size=(repeats, sets, seeds))
    d += shared * generator.normal(size=(repeats, 1, seeds))
    ends = [resampling.hierarchical(rows, draws=1000, seed=i) for i, rows in enumerate(d)]
    return float(np.mean([e.low <= 0 <= e.high for e in ends]))
