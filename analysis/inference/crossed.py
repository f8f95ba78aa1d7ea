"""Teacher sets crossed with seeds: an interval for the mean over all teachers, and one that adds test images.

The difference of two methods moves with the set of teachers, with the seed, and from run to run. The variance of its
mean over a sets x b seeds is (MS_sets + MS_seeds - MS_error) / (a b), with Satterthwaite's degrees of freedom (never
fewer than the shorter side has), and never less than either mean square alone would say. Its coverage is in
CALIBRATION.md, next to that of the bootstrap that it replaced.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Effects(NamedTuple):
    """Mean, its standard error, degrees of freedom, and t interval; each of the leading shape."""

    mean: NDArray
    error: NDArray
    df: NDArray
    low: NDArray
    high: NDArray


def over_teachers(d: ArrayLike, confidence: float = 0.95) -> Effects:
    """The mean over teachers and seeds of paired differences d[..., sets, seeds], every set with every seed.

    NaN but for the mean where there is one set only, or one seed.
    """
    d = np.asarray(d, float)
    a, b = d.shape[-2:]
    mean = d.mean((-2, -1))
    if a < 2 or b < 2:
        nan = np.full_like(mean, np.nan)
        return Effects(mean, nan, nan, nan, nan)
    by_set, by_seed = d.mean(-1), d.mean(-2)
    rest = d - by_set[..., None] - by_seed[..., None, :] + mean[..., None, None]
    squares = b * by_set.var(-1, ddof=1), a * by_seed.var(-1, ddof=1), (rest**2).sum((-2, -1)) / ((a - 1) * (b - 1))
    of_sets, of_seeds, of_error = squares
    total = of_sets + of_seeds - of_error
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.maximum(total, 0) ** 2 / (
            of_sets**2 / (a - 1) + of_seeds**2 / (b - 1) + of_error**2 / ((a - 1) * (b - 1))
        )
    df = np.fmax(df, min(a, b) - 1)
    return _interval(mean, np.sqrt(np.maximum(total, np.maximum(of_sets, of_seeds)) / (a * b)), df, confidence)


def over_images(d: ArrayLike, confidence: float = 0.95) -> Effects:
    """The mean over teachers, seeds and test images of d[sets, seeds, images]; teachers are given where there is one set.

    The variance over runs and that over images add up; what they share is counted twice, which errs to the wide side.
    """
    d = np.asarray(d, float)
    runs, images = d.mean(-1), d.mean((0, 1))
    if len(runs) > 1:
        layer = over_teachers(runs, confidence)
        error, df = float(layer.error), float(layer.df)
    else:
        error, df = standard_error(runs[0]), runs.shape[1] - 1
    other = standard_error(images)
    both = error**2 + other**2
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.float64(both**2) / (error**4 / df + other**4 / (len(images) - 1)) if both else np.float64(df)
    return _interval(d.mean(), np.sqrt(both), df, confidence)


def standard_error(values: NDArray) -> float:
    """Of the mean of values [n]; NaN below two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _interval(mean: NDArray, error: NDArray, df: NDArray, confidence: float) -> Effects:
    half = stats.t.ppf((1 + confidence) / 2, df) * error
    return Effects(mean, error, df, mean - half, mean + half)
