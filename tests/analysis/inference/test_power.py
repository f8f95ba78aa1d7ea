"""Power: of the test that decides, not of a handier one."""

import math
from collections import Counter

import numpy as np
import pytest

from analysis.inference import power, simulation, statistics


@pytest.mark.parametrize(
    "n, published",
    [
        (3, (0.18, 0.47, 0.75)),
        (4, (0.29, 0.75, 0.97)),
        (5, (0.40, 0.91, 1.0)),
        (8, (0.68, 1.0, 1.0)),
        (10, (0.80, 1.0, 1.0)),
    ],
)
def test_power_of_the_paired_t(n, published):
    assert power.power([1, 2, 3], n, test="t") == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize("test", ["guarded", "sign_flip", "t"])
@pytest.mark.parametrize("effect, n, k", [(1.3, 6, 1), (0.7, 12, 1), (1.2, 12, 4), (0.8, 18, 4)])
def test_power_agrees_with_simulation(effect, n, k, test):
    repeats = 3000
    found = simulation.found(effect, n, repeats, k, test)
    assert power.power(effect, n, 0.05 / k, test) == pytest.approx(found, abs=0.01 + 3 * math.sqrt(0.25 / repeats))


@pytest.mark.parametrize("n, k", [(6, 1), (8, 1), (8, 3), (8, 4), (9, 10), (13, 4), (20, 4)])
def test_what_is_called_detectable_is_found_four_times_in_five(n, k):
    """By the decision itself: Holm over the guarded p of a family in which the others make no difference."""
    repeats = 2000
    effect = power.detectable(1.0, n, 0.05 / k)
    d = np.random.default_rng([n, k]).normal(size=(repeats, k, n))
    d[:, 0] += effect
    found = np.mean([statistics.holm(p)[0] <= 0.05 for p in statistics.guarded(d)])
    assert found == pytest.approx(0.8, abs=0.01 + 3 * math.sqrt(0.16 / repeats))


@pytest.mark.parametrize("test", ["guarded", "sign_flip"])
@pytest.mark.parametrize("n, alpha", [(6, 0.05), (8, 0.0125), (11, 0.05)])
def test_critical_values_are_where_the_decision_turns(n, alpha, test):
    half = np.random.default_rng(n).normal(size=(power.SHAPES // 2, n))
    half -= half.mean(1, keepdims=True)
    half /= half.std(1, ddof=1, keepdims=True)
    shapes, critical = np.concatenate([half, -half]), power._critical(n, alpha, test)
    for factor, found in ((1 + 1e-6, True), (1 - 1e-6, False)):
        p = statistics.decide(shapes + (factor * critical / math.sqrt(n))[:, None], test)
        assert ((p <= alpha) == found).all()


@pytest.mark.parametrize("test", ["guarded", "t"])
def test_detectable_and_needed_are_each_others_inverse(test):
    difference = power.detectable(0.3, 9, test=test)
    assert power.power(difference / 0.3, 9, test=test) == pytest.approx(0.8, abs=1e-6)
    assert power.pairs_needed(0.3, difference * 1.0001, test=test) == 9
    assert power.pairs_needed(0.3, difference * 0.95, test=test) == 10


def test_nothing_is_detectable_below_the_floor():
    assert math.isnan(power.detectable(0.3, 5))
    assert math.isnan(power.detectable(0.3, 8, 0.05 / 10))
    assert math.isnan(power.detectable(0.3, 1, test="t"))
    assert math.isnan(power.detectable(math.nan, 8))
    assert power.pairs_needed(0.01, 1.0) == 6
    assert power.pairs_needed(0.0, 1.0) == 6


def test_many_pairs():
    """Beyond the sampled range the cost over the plain t is a formula: it must meet the sample."""
    for k in (1, 4):
        assert power.power(power.detectable(1.0, 64, 0.05 / k), 64, 0.05 / k) == pytest.approx(0.8, abs=0.01)
    assert power.pairs_needed(1.0, 1e-6) is None
    assert power.pairs_needed(1.0, 0.02) == pytest.approx(power.pairs_needed(1.0, 0.02, test="t"), rel=1e-3)


def test_a_report_of_many_contrasts_does_not_wait_for_it(monkeypatch):
    """What takes long depends on n, level and test alone: it is done once for each, and each search is short."""
    for known in (power._cost, power._effect, power._critical):
        known.cache_clear()
    done = Counter()

    def counted(name):
        original = getattr(power, name)

        def call(*arguments):
            done[name] += 1
            return original(*arguments)

        monkeypatch.setattr(power, name, call)

    counted("_critical_flip")
    counted("power")
    for sd in np.linspace(0.01, 3, 60):
        for k in (1, 4):
            power.detectable(sd, 8, 0.05 / k)
            power.pairs_needed(sd, 0.1, 0.05 / k)
    assert done["_critical_flip"] <= 2 * power.SAMPLED_UP_TO
    assert done["power"] <= 120 * 40


def test_a_family_too_large_for_the_sample_of_flips_still_has_an_answer():
    assert 0 < power.detectable(1.0, 18, 1e-4) < power.detectable(1.0, 15, 1e-4) < math.inf
    assert power.pairs_needed(1.0, 0.5, 1e-6) > power.pairs_needed(1.0, 0.5, 1e-3)
