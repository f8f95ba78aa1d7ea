"""Two trained models on the same test images: bootstrap over images, and McNemar's test.

A percentile bootstrap over few units is too narrow (.75 coverage at n = 3, .90 at n = 10); it is used here over images
alone, of which there are many. Seeds and teacher sets are in `crossed`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

DRAWS = 4000


class Interval(NamedTuple):
    """A mean and its percentile interval."""

    mean: float
    low: float
    high: float


def _interval(mean: float, draws: NDArray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(mean), float(low), float(high))


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
