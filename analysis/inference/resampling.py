"""Bootstrap intervals where no formula fits: teacher sets above seeds, and test images under seeds.

A percentile bootstrap over few units is too narrow (.75 coverage at n = 3, .90 at n = 10); it is used here
where there are many units (images), or where the design has two layers, and never as a verdict over seeds
alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

DRAWS = 4000
ENOUGH = 8  # teacher sets, and seeds, from which on the hierarchical interval covers about .90 (see CALIBRATION.md)


class Interval(NamedTuple):
    """A mean and its percentile interval."""

    mean: float
    low: float
    high: float


def _interval(mean: float, draws: NDArray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(mean), float(low), float(high))


def hierarchical(d: ArrayLike, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Resample teacher sets and seeds; the statistic is the mean of the sets' means.

    d: paired differences [sets, seeds], NaN where a set did not meet a seed. Seeds are crossed with sets, and what
    a seed does alike in all of them is no independent news from each: a draw has the same seeds in every set.
    With fewer than ENOUGH sets or seeds the interval is too narrow, and the caller has to say so.
    """
    d = np.asarray(d, float)
    met = ~np.isnan(d)
    if not d.size or not met.any(1).all():
        raise ValueError("hierarchical bootstrap needs at least one difference in every teacher set")
    generator = np.random.default_rng(seed)
    seeds, sets = (
        generator.multinomial(k, np.full(k, 1 / k), draws) for k in d.shape[::-1]
    )  # how often each was drawn
    with np.errstate(invalid="ignore"):
        means = (seeds @ np.where(met, d, 0).T) / (seeds @ met.T)  # [draws, sets]; NaN where a set met no drawn seed
        drawn = np.nansum(sets * means, 1) / (sets * ~np.isnan(means)).sum(1)
    return _interval(np.nanmean(d, 1).mean(), drawn[~np.isnan(drawn)], confidence)


def images(d: ArrayLike, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Paired bootstrap over test images: d[N] is one model's value minus the other's, per image.

    The claim is about these two trained models on new images, not about the two methods.
    """
    d = np.asarray(d, float)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [d[generator.integers(0, len(d), (part, len(d)))].mean(-1) for part in _parts(draws, len(d))]
    )
    return _interval(d.mean(), means, confidence)


def crossed(d: ArrayLike, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Seeds and images resampled independently and crossed: d[S, N] per seed and image.

    Covers both layers of uncertainty: another training run and another test image.
    """
    d = np.asarray(d, float)
    seeds, count = d.shape
    generator = np.random.default_rng(seed)
    means = []
    for part in _parts(draws, count):
        rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds), part)  # how often each seed was drawn
        columns = generator.multinomial(count, np.full(count, 1 / count), part)
        means.append(((rows @ d) * columns).sum(-1) / (seeds * count))
    return _interval(d.mean(), np.concatenate(means), confidence)


def _parts(draws: int, width: int) -> list[int]:
    """Split the draws so that no block of draws x width exceeds about 64 MB."""
    block = max(1, min(draws, 8_000_000 // max(width, 1)))
    return [min(block, draws - start) for start in range(0, draws, block)]


class McNemar(NamedTuple):
    """Images that only the first, or only the second model got right, and the exact p of an even split."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact McNemar test of two models' correctness, boolean [N] each, on the same images."""
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape:
        raise ValueError(f"McNemar needs the same images: {first.shape} against {second.shape}")
    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(a, b, 1.0 if a + b == 0 else float(stats.binomtest(a, a + b).pvalue))
