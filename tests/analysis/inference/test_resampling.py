"""The bootstraps and McNemar's test against formulas, and at their edges."""

import numpy as np
import pytest
from scipy import stats

from analysis.inference import resampling


def width(interval):
    return interval.high - interval.low


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


def test_crossed_bootstrap_is_wider_than_either_layer():
    generator = np.random.default_rng(6)
    d = 0.1 + generator.normal(0, 0.1, (8, 1)) + generator.normal(0, 1, (1, 500)) + generator.normal(0, 0.3, (8, 500))

    whole = resampling.crossed(d)
    assert whole.mean == pytest.approx(d.mean())
    assert width(whole) > width(resampling.images(d.mean(0)))
    assert width(whole) > width(resampling.images(d.mean(1)))


def test_hierarchical_bootstrap_sees_the_spread_between_teacher_sets():
    flat = 0.2 + np.random.default_rng(7).normal(0, 0.05, (4, 8))
    spread = flat + np.array([[-0.3], [-0.1], [0.1], [0.3]])
    narrow, wide = resampling.hierarchical(flat), resampling.hierarchical(spread)
    assert width(wide) > 3 * width(narrow)
    assert wide == resampling.hierarchical(spread)  # the same data give the same interval


def test_hierarchical_bootstrap_takes_a_seed_alike_in_all_sets():
    """Ten sets say no more than one about what a seed does in all of them."""
    by_seed = np.random.default_rng(8).normal(size=(1, 8))
    one, ten = resampling.hierarchical(by_seed), resampling.hierarchical(np.repeat(by_seed, 10, 0))
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high), abs=0.05)
    assert width(one) == pytest.approx(width(resampling.images(by_seed[0])), rel=0.1)


def test_hierarchical_bootstrap_of_sets_that_lack_seeds():
    d = np.array([[0.1, 0.2, 0.3], [0.5, np.nan, np.nan]])
    found = resampling.hierarchical(d)
    assert found.mean == pytest.approx(0.35)
    assert 0.1 <= found.low < found.high == 0.5
    for bad in ([[0.1], [np.nan]], [[]]):
        with pytest.raises(ValueError, match="every teacher set"):
            resampling.hierarchical(bad)
