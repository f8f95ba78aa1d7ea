"""The statistics against published numbers, against scipy, and at their edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.inference import ranks, statistics

KD = {
    "acc": [79.00, 79.53, 79.11, 79.03],
    "nll": [1.064, 1.064, 1.081, 1.080],
    "ece": [0.136, 0.129, 0.135, 0.135],
    "ece_ts": [0.041, 0.044, 0.045, 0.044],
}


LATENT = {
    "acc": [79.03, 79.48, 79.41, 79.37],
    "nll": [1.024, 0.999, 1.014, 1.010],
    "ece": [0.130, 0.125, 0.128, 0.126],
    "ece_ts": [0.045, 0.045, 0.046, 0.046],
}


TDIV = {
    "acc": [79.98, 80.21, 79.99, 80.16],
    "nll": [0.808, 0.799, 0.792, 0.793],
    "ece": [0.071, 0.070, 0.074, 0.067],
    "ece_ts": [0.044, 0.044, 0.037, 0.038],
}


# (variant, reference, metric, difference, its last digit, interval or None, p as published with its last
# digit or a bound)
PUBLISHED = [
    (LATENT, KD, "acc", 0.155, 0.0005, (-0.154, 0.464), (0.21, 0.005)),
    (LATENT, KD, "nll", -0.0605, 0.00005, None, (0.0031, 0.00005)),
    (LATENT, KD, "ece", -0.0065, 0.00005, None, (0.008, 0.0005)),
    (LATENT, KD, "ece_ts", 0.0020, 0.00005, None, (0.066, 0.0005)),
    (TDIV, LATENT, "acc", 0.763, 0.0005, (0.519, 1.006), (0.0022, 0.00005)),
    (TDIV, LATENT, "nll", -0.2138, 0.00005, None, (1e-4, None)),
    (TDIV, LATENT, "ece", -0.0568, 0.00005, None, (1e-4, None)),
    (TDIV, LATENT, "ece_ts", -0.0048, 0.00005, None, (0.12, 0.005)),
    (TDIV, KD, "acc", 0.918, 0.0005, (0.617, 1.218), (0.0023, 0.00005)),
    (TDIV, KD, "nll", -0.2743, 0.00005, None, (1e-4, 0.00005)),
    (TDIV, KD, "ece", -0.0633, 0.00005, None, (1e-4, 0.00005)),
    (TDIV, KD, "ece_ts", -0.0028, 0.00005, None, (0.36, 0.005)),
]


@pytest.mark.parametrize("variant, reference, metric, difference, digit, interval, p", PUBLISHED)
def test_worked_example_to_the_digits_given(variant, reference, metric, difference, digit, interval, p):
    d = np.subtract(variant[metric], reference[metric])
    t = statistics.paired_t(d)
    assert t.df == 3
    assert t.mean == pytest.approx(difference, abs=digit + 1e-9)
    if interval:
        assert (t.low, t.high) == pytest.approx(interval, abs=0.0005)
    value, half = p
    assert t.p < value if half is None else t.p == pytest.approx(value, abs=half)


def test_worked_example_exact_ranks_cannot_settle_it():
    strong = [
        (LATENT, KD, "nll"),
        (LATENT, KD, "ece"),
        (TDIV, LATENT, "acc"),
        (TDIV, KD, "nll"),
        (TDIV, KD, "acc"),
    ]
    for variant, reference, metric in strong:
        d = np.subtract(variant[metric], reference[metric])
        assert ranks.signed_rank(d) == statistics.sign_flip(d) == 0.125 == statistics.smallest_p(4)
        assert statistics.guarded(d) == 0.125


@pytest.mark.parametrize(
    "n, floor", [(3, 0.25), (4, 0.125), (5, 0.0625), (8, 0.0078125), (9, 0.00390625), (10, 0.001953125)]
)
def test_floors(n, floor):
    assert statistics.smallest_p(n) == floor
    d = np.linspace(1, 2, n)
    assert statistics.sign_flip(d) == ranks.signed_rank(d) == floor


def test_seeds_that_a_family_needs():
    assert [statistics.pairs_for_floor(0.05, k) for k in (1, 4, 10)] == [6, 8, 9]
    assert statistics.pairs_for_floor(0.05, 4, "t") == 2
    assert statistics.smallest_p(3, "t") == 0
    assert statistics.smallest_p(8, zeros=3) == statistics.smallest_p(5)


def test_paired_t_is_scipys():
    d = np.random.default_rng(1).normal(0.2, 1, (5, 7))
    t = statistics.paired_t(d)
    expected = stats.ttest_1samp(d, 0, axis=1)
    interval = expected.confidence_interval()
    np.testing.assert_allclose(
        [t.t, t.p, t.low, t.high], [expected.statistic, expected.pvalue, interval.low, interval.high]
    )
    one_sided = stats.ttest_1samp(d, 0, axis=1, alternative="less").pvalue
    np.testing.assert_allclose(statistics.paired_t(d, alternative="less").p, one_sided)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n", [3, 6, 9])
def test_sign_flip_is_scipys_permutation_test(n, alternative):
    d = np.random.default_rng(n).normal(0.4, 1, n).round(1)  # rounded: equal sums occur
    expected = stats.permutation_test(
        (d, np.zeros(n)), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True,
        alternative=alternative, n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert statistics.sign_flip(d, alternative) == pytest.approx(expected)


def test_sampled_sign_flip_beyond_the_exact_range_is_near_the_normal_limit():
    d = np.random.default_rng(3).normal(0.25, 1, 60)
    limit = 2 * stats.norm.sf(abs(d.sum()) / np.sqrt((d**2).sum()))
    assert statistics.sign_flip(d) == pytest.approx(limit, abs=0.01)


def test_signed_rank_is_scipys_exact_test():
    for seed in range(5):
        d = np.random.default_rng(seed).normal(0.3, 1, 9)
        assert ranks.signed_rank(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)
    assert ranks.signed_rank([0.0, 0.0, 0.0]) == 1


def test_holm_by_hand():
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.02, np.nan, 0.04]), [0.04, np.nan, 0.04])
    np.testing.assert_allclose(statistics.benjamini_hochberg([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert np.isnan(statistics.holm([np.nan])).all()


def test_hedges_correction():
    d = np.array([0.1, 0.3, 0.2, 0.6])
    plain = d.mean() / d.std(ddof=1)
    assert statistics.hedges(d) / plain == pytest.approx(0.7236, abs=5e-4)  # Hedges 1981, table 1, 3 degrees of freedom
    assert np.isnan(statistics.hedges([0.2, 0.2, 0.2]))


def test_superiority_counts_ties_half():
    assert statistics.superiority([1, 0, -1, 2]) == 0.625


@pytest.mark.parametrize("test", ["guarded", "t", "sign_flip"])
def test_degenerate_differences(test):
    assert statistics.decide([0.0, 0.0, 0.0], test) == 1
    flat = statistics.decide([0.1] * 8, test)
    assert np.isnan(flat) if test == "t" else flat == statistics.smallest_p(8)
    rounding = statistics.decide(np.array([0.3] * 8) - np.array([0.2, 0.1 + 0.1] * 4), test)
    assert np.isnan(rounding) if test == "t" else rounding == statistics.smallest_p(8)


def test_one_pair_has_no_test():
    t = statistics.paired_t([0.5])
    assert np.isnan([t.p, t.low, t.high]).all()
    assert t.mean == 0.5


differences = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=3, max_size=10)


@settings(deadline=None, max_examples=150)
@given(differences)
def test_no_p_lies_below_its_floor_nor_beyond_one(d):
    zeros = d.count(0)
    p = statistics.guarded(d)
    assert min(1, statistics.smallest_p(len(d), zeros=zeros)) - 1e-12 <= p <= 1
    assert p >= np.nan_to_num(statistics.paired_t(d).p) - 1e-12
    assert p >= statistics.sign_flip(d)


@settings(deadline=None, max_examples=100)
@given(differences, st.floats(0.01, 1000))
def test_p_depends_on_neither_unit_nor_direction(d, unit):
    d = np.array(d)
    for test in ("guarded", "sign_flip"):
        assert statistics.decide(-d, test) == pytest.approx(statistics.decide(d, test))
        assert statistics.decide(unit * d, test) == pytest.approx(statistics.decide(d, test))


def test_skew_guard_speaks_against_only():
    long_tail_away = np.array([-0.9, -0.8, -0.95, -0.7, -0.85, -0.9, -0.6, 0.1])  # mean below 0, tail above
    assert statistics.skew_guarded_t(long_tail_away) > statistics.paired_t(long_tail_away).p
    long_tail_with = -np.abs(long_tail_away) * np.array([1, 1, 1, 1, 1, 1, 1, 30])
    assert statistics.skew_guarded_t(long_tail_with) == statistics.paired_t(long_tail_with).p
    overwhelming = np.random.default_rng(0).normal(8, 1, 12)
    assert statistics.skew_guarded_t(overwhelming) < 1e-6


def test_equivalence_needs_both_sides():
    d = np.random.default_rng(2).normal(0, 0.01, 10)
    assert statistics.equivalence(d, 0.05) < 0.01
    assert statistics.equivalence(d + 0.05, 0.05) > 0.2
    assert statistics.equivalence(d - 0.05, 0.05) > 0.2
    assert statistics.noninferiority(d + 1, 0.05) < 0.01
    assert statistics.equivalence([0.001, 0.0, -0.001], 0.05) == 0.125  # three pairs settle nothing


def test_signed_ranks_have_the_direction_of_the_test():
    d = np.array([1.0, 2, 3, 0, -40])
    assert ranks.signed_ranks(d).tolist() == [1, 2, 3, -4]
