"""The bootstraps and McNemar's test against formulas, and at their edges."""

import numpy as np
import pytest
from scipy import stats

from analysis.inference import resampling


def test_mcnemar_is_the_exact_binomial():
    first = np.array([True] * 9 + [False] * 11)
    second = np.array([True] * 2 + [False] * 7 + [True] * 1 + [False] * 10)
    found = resampling.mcnemar(first, second)
    assert (found.only_first, found.only_second) == (7, 1)
    assert found.p == pytest.approx(stats.binomtest(7, 8).pvalue)
    assert resampling.mcnemar(first, first).p == 1
    with pytest.raises(ValueError, match="same images"):
        resampling.mcnemar(first, second[:-1])


def test_image_bootstrap_is_near_the_normal_interval():
    d = np.random.default_rng(5).normal(0.1, 1, 900)
    found = resampling.images(d)
    half = 1.96 * d.std() / 30
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.01)
