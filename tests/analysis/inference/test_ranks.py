"""The typical run, counted outcomes, and teachers crossed with seeds."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from analysis.inference import designs, outcomes, power, ranks, simulation, statistics
from analysis.inference.crossed import over_images, over_teachers

REPEATS = 2000


@pytest.mark.parametrize("n", [6, 9, 20])
def test_the_exact_interval_of_the_typical_run_covers(n):
    found = ranks.typical(np.random.default_rng(n).normal(0.3, 1, (REPEATS, n)))
    assert 0.95 - 0.015 <= ((found.low <= 0.3) & (found.high >= 0.3)).mean() <= 0.985


def test_the_interval_holds_what_the_test_does_not_refuse():
    d = np.random.default_rng(1).normal(0.5, 1, 11)
    found = ranks.typical(d)
    for end, inwards in ((found.low, 1e-6), (found.high, -1e-6)):
        assert ranks.signed_rank(d - end - inwards) > 0.05 >= ranks.signed_rank(d - end + inwards)
    assert np.isnan(ranks.typical(d[:5]).low)  # five seeds refuse nothing


def test_failed_runs_are_the_last_rank_and_no_more():
    d = [-0.1, -0.2, -0.15, -0.12, -0.3, -0.11, -0.2]
    assert ranks.signed_rank([*d, np.inf]) == ranks.signed_rank([*d, 1e9])
    found = ranks.typical([*d, np.inf])
    assert found.estimate == ranks.typical([*d, 1e9]).estimate
    assert np.isinf(found.high)
    assert ranks.signed_rank([np.inf, -np.inf, np.inf, -np.inf]) == 1
    assert statistics.decide([*d, np.inf], "guarded") == ranks.signed_rank([*d, np.inf])


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_ranks_are_scipys(alternative):
    d = np.random.default_rng(3).normal(0.3, 1, (5, 9))
    expected = [stats.wilcoxon(row, method="exact", alternative=alternative).pvalue for row in d]
    np.testing.assert_allclose(ranks.signed_rank(d, alternative), expected)


def test_interquartile_mean():
    assert ranks.interquartile_mean([0, 1, 2, 3, 4, 5, 6, np.inf]) == pytest.approx(3.5)


def test_shares_are_clopper_pearson():
    for count, n in ((0, 8), (3, 8), (8, 8), (1, 24)):
        exact = stats.binomtest(count, n).proportion_ci(method="exact")
        assert outcomes.share(count, n)[2:] == pytest.approx((exact.low, exact.high))
    assert outcomes.matched([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]) == pytest.approx(0.03125)
    assert outcomes.matched([1, 0], [1, 0]) == 1


# (sets, seeds) x (sd of sets, of seeds, over that of runs): the specification's coverage
COVERAGE = {
    (3, 8): (1.0, 0.99, 0.96, 0.96, 0.95, 0.93),
    (2, 8): (1.0, 1.0, 0.99, 0.97, 0.96, 0.94),
    (8, 8): (0.99, 0.95, 0.95, 0.95, 0.95, 0.95),
}


@pytest.mark.parametrize("place", COVERAGE)
def test_the_interval_over_teachers_covers_as_specified(place):
    for spread, expected in zip(((0, 0), (0.5, 0), (1, 0), (2, 0), (1, 1), (2, 1)), COVERAGE[place], strict=True):
        found = designs.teacher_coverage(*place, REPEATS, *spread)
        assert found == pytest.approx(expected, abs=0.005 + 3 * np.sqrt(0.05 * 0.95 / REPEATS))
    assert designs.seeds_only_coverage(3, 8, REPEATS, 1.0) == pytest.approx(0.51, abs=0.05)


def test_over_teachers_by_hand():
    d = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])  # purely additive: no error left
    found = over_teachers(d)
    sets, seeds = 3 * 2.0, 2 * 1.0
    assert found.mean == 3
    assert found.error == pytest.approx(np.sqrt((sets + seeds) / 6))
    assert np.isnan(over_teachers(d[:1]).low)


def test_images_are_a_layer_of_their_own():
    for place in ((1, 8, 0.0), (3, 8, 0.0), (3, 8, 1.0)):
        assert designs.image_coverage(*place[:2], 300, place[2]) > 0.91
    assert over_images(np.zeros((2, 3, 4)))[0] == 0


def test_rank_and_guarded_test_where_runs_collapse():
    guarded, rank = designs.collapsed_power(16, 0.05, 1.5, REPEATS)
    assert (rank, guarded) == (pytest.approx(0.81, abs=0.03), pytest.approx(0.44, abs=0.04))
    assert simulation.found(1, 12, REPEATS, 4, "rank") == pytest.approx(0.66, abs=0.035)


def test_false_verdicts_where_runs_fail():
    for n, rate in ((8, 0.1), (12, 0.3)):
        assert designs.failed_error(n, rate, REPEATS) <= simulation.bound(REPEATS)
    alone, decided = designs.failed_verdicts(12, 0.33, 1.5, REPEATS)
    assert alone > 0.7
    assert decided < 0.1


def test_one_level_for_differences_and_equivalence():
    two, one = designs.claims_error(12, 600)
    assert one <= simulation.bound(600) < two + 0.03
    assert one < two


def test_a_declared_size_holds_its_level_while_arms_arrive():
    arriving, declared = designs.arriving_error(12, REPEATS)
    assert declared <= simulation.bound(REPEATS) < arriving + 0.005


def test_networks_on_one_data_set_are_no_blocks():
    blocks, averaged = designs.networks_error(6, 4, REPEATS)
    assert averaged <= simulation.bound(REPEATS) < 0.16 < blocks


def test_power_is_stated_with_the_uncertainty_of_the_sd():
    low, high, seen, upper = designs.foreseen_power(8, REPEATS)
    assert low < 0.5 and high > 0.9 and seen < 0.55
    assert upper == pytest.approx(0.8, abs=0.04)
    assert power.largest_sd(1.0, 8) == pytest.approx(np.sqrt(7 / stats.chi2.ppf(0.2, 7)))


def test_the_guard_is_monotone_where_every_difference_grows_alike():
    """One far tail against the mean: the quadratic correction used to turn back."""
    d = np.array([0.3] * 31 + [-4.0]) + 0.01 * np.random.default_rng(0).normal(size=32)
    p = [float(statistics.skew_guarded_t(d + shift)) for shift in np.linspace(0, 1.5, 60)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(p) if earlier < 1)


def test_sampled_flips_have_the_floor_of_the_sample():
    d = np.linspace(1, 2, 40)
    assert statistics.sign_flip(d) == statistics.smallest_p(40) == 1 / (statistics.SAMPLED_FLIPS + 1)
