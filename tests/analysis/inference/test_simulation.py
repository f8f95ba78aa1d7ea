"""The tests' own error rates (fast form)."""

import numpy as np
import pytest

from analysis.inference import simulation, statistics

REPEATS = 600


@pytest.mark.parametrize("scenario", simulation.PROMISED)
@pytest.mark.parametrize("k", [1, simulation.FAMILY])
@pytest.mark.parametrize("n", [3, 6, 8, 13, 20])
def test_false_verdicts_stay_at_the_declared_level(scenario, k, n):
    assert simulation.family_error(scenario, n, REPEATS, k) <= simulation.bound(REPEATS)


def test_the_guard_halves_the_error_where_shapes_differ():
    plain = simulation.family_error("skewness 2", 14, REPEATS, test="t")
    assert plain > simulation.bound(REPEATS)
    assert simulation.family_error("skewness 2", 14, REPEATS) < 0.7 * plain


def test_the_bound_can_be_broken():
    """Not adjusting at all is caught, so the level above is not kept by an idle check."""
    d = simulation.exchangeable_normal(np.random.default_rng(0), REPEATS, 4, 12)
    assert (statistics.guarded(d).min(-1) <= 0.05).mean() > simulation.bound(REPEATS)


def test_false_equivalence_stays_at_its_level():
    assert simulation.false_equivalence(10, REPEATS) <= simulation.bound(REPEATS)


def test_real_effects_are_found():
    assert simulation.found(2.0, 10, REPEATS, k=4) > 0.9
    assert simulation.found(2.0, 3, REPEATS) == 0


def test_interval_coverage():
    assert simulation.coverage("normal", 5, 4000) == pytest.approx(0.95, abs=0.012)
    for n, expected in ((3, 0.75), (5, 0.84), (10, 0.90)):
        assert simulation.coverage("bootstrap", n, 500) == pytest.approx(expected, abs=0.05)


def test_pairs_of_runs_that_share_a_seed_are_not_independent():
    assert simulation.crossed_error(8, 3, REPEATS, by_seed=True) <= simulation.bound(REPEATS)
    assert simulation.crossed_error(8, 3, REPEATS, by_seed=False) > simulation.bound(REPEATS)


def test_one_sided_errors_by_skewness():
    """A long tail towards the loss is what few seeds do not see; the page says how much that costs."""
    assert simulation.one_sided_error(0.0, 12, 4000) <= simulation.bound(4000)
    assert simulation.one_sided_error(2.0, 12, 4000) < simulation.one_sided_error(-2.0, 12, 4000) < 0.12


def test_what_is_claimed_is_what_is_decided():
    d = simulation.skewness_two(np.random.default_rng(5), 300, 1, 9)[:, 0]
    for alternative in ("two-sided", "greater", "less"):
        expected = statistics.guarded(d, alternative) <= 0.05
        assert (simulation.claimed(d, 0.05, alternative=alternative) == expected).all()
        assert expected.any()
