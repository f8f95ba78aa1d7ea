"""The sequential test: what is spent, that it is exact, that Holm is the closed test, and what a study costs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.inference import ranks, sequential, statistics
from analysis.inference.sequential import (
    Design,
    crossings,
    equivalences,
    repeated_interval,
    sequential_p,
    settle,
    spent,
    walk,
)
from analysis.inference.sequential_calibration import LOOKS, expect

SPENDING = ("obrien_fleming", "pocock")
STATISTIC = ("mean", "rank")


@given(st.floats(1e-4, 0.4), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from(SPENDING))
def test_spending_is_monotone_and_ends_at_the_level(level, a, b, spending):
    assert spent(level, min(a, b), spending) <= spent(level, max(a, b), spending)
    assert spent(level / 2, a, spending) <= spent(level, a, spending)
    assert spent(level, 1.0, spending) == pytest.approx(level)


def test_spending_is_lan_and_demets():
    """Values of two-sided .05 at half of the information, from their paper's table."""
    assert spent(0.05, 0.5) == pytest.approx(0.00557, abs=1e-5)
    assert spent(0.05, 0.5, "pocock") == pytest.approx(0.03101, abs=1e-5)


@pytest.mark.parametrize("statistic", STATISTIC)
@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
@pytest.mark.parametrize("draws", [0, 64])
def test_it_is_exact_under_sign_symmetry(statistic, spending, alternative, draws):
    """Of all studies with these sizes of differences, no more are rejected by any look than the level spent by then.

    Every sign vector is tried as the observed one, with ties and zeros among the differences; with a subgroup too.
    """
    design = Design((4, 6, 8), spending, statistic)
    sizes = np.array([0.3, 1.1, 0.7, 0.7, 2.5, 0.0, 1.9, 0.2])
    every = np.array(list(itertools.product([1, -1], repeat=8))) * sizes
    for level in (0.05, 0.2):
        crossed = walk(every, design, level, alternative, draws).crossed[0]
        for k, n in enumerate(design.looks):
            assert crossed[:, k].mean() <= spent(level, n / 8, spending) + 1e-12
        assert (np.diff(crossed.astype(int), axis=1) >= 0).all()
    assert crossed[:, -1].any()


def test_one_look_is_the_fixed_sign_flip():
    d = np.random.default_rng(0).normal(0.6, 1, (40, 10))
    p = statistics.sign_flip(d)
    for level in (0.01, 0.05, 0.2):
        assert (walk(d, Design((10,)), level).crossed[0, :, 0] == (p <= level)).all()
    ranked = walk(d, Design((10,), statistic="rank"), 0.05).crossed[0, :, 0]
    assert (ranked == (ranks.signed_rank(d) <= 0.05)).all()
    assert sequential_p(d[0], Design((10,), statistic="rank")) == pytest.approx(float(ranks.signed_rank(d[0])))


def test_the_observed_path_is_one_of_the_paths():
    """With one seed more, each path of the look before has two heirs; the observed study's is the first."""
    d = np.random.default_rng(1).normal(0.5, 1, (1, 6))
    for two_sided in (True, False):
        sums = sequential._sums(d, 6, two_sided, 0)
        assert sums.shape == (1, 2 ** (6 - two_sided))
        assert sums[0, 0] == pytest.approx(abs(d.sum()) if two_sided else d.sum())
        before = sequential._sums(d[:, :5], 6, two_sided, 0)
        if not two_sided:
            assert np.tile(before, 2)[0] == pytest.approx(sums[0] - d[0, 5] * np.repeat([1, -1], 32))
        signs = sequential._group(6, 2 ** (6 - two_sided), two_sided)
        flipped = d @ signs.T
        assert np.sort(np.abs(flipped) if two_sided else flipped) == pytest.approx(np.sort(sums))


def test_long_studies_walk_a_group():
    signs = sequential._group(30, 256, True)
    rows = {row.tobytes() for row in signs}
    assert (signs[0] == 1).all()
    assert all((a * b).tobytes() in rows for a in signs[:40] for b in signs[-40:])
    assert len({signs[:, i].tobytes() for i in range(30)}) == 30, "no two seeds flip together"


def test_what_a_look_cannot_spend_is_left_to_later_ones():
    d = np.random.default_rng(2).normal(0, 1, (1, 8))
    design = Design((4, 8), "pocock")
    first, late = walk(d, design, 0.05).nominal[0, 0]
    assert first == 0, "4 seeds have 16 paths, and .031 of them is none"
    assert 0.04 < late <= 0.05


def test_the_guard_can_hold_back_what_the_flips_found():
    """One long tail away from 0, the others just beside it: exact flips see signs, the t does not believe them."""
    d = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 9.0])
    design = Design((8,))
    assert walk(d, design, 0.05).crossed[0, 0]
    assert not crossings(d, design, 0.05)[0, 0]
    assert crossings(d, design._replace(statistic="rank"), 0.05)[0, 0]


def test_a_failed_run_is_the_worst_rank():
    d = np.array([-0.3, -0.2, -0.4, -0.1, -0.6, -0.5, -0.7, -0.8])
    design = Design((8,), statistic="rank")
    assert crossings(d, design, 0.05)[0, 0]
    d[[0, 1]] = np.inf
    assert not crossings(d, design, 0.05)[0, 0]
    low, high = repeated_interval(d, design)
    assert low < 0 and high == np.inf


def closed_test(p, alpha):
    """Holm by its definition: a hypothesis falls where every intersection that holds it falls by Bonferroni."""
    m = len(p)
    subsets = [s for r in range(1, m + 1) for s in itertools.combinations(range(m), r)]
    return [all(min(p[j] for j in s) <= alpha / len(s) for s in subsets if i in s) for i in range(m)]


@settings(max_examples=200)
@given(st.lists(st.floats(1e-4, 0.2), min_size=1, max_size=4))
def test_holm_is_the_closed_test(p):
    levels = 0.05 / np.arange(1, len(p) + 1)
    different = (np.array(p)[None, :] <= levels[:, None])[..., None]
    outcome, look = settle(different)
    assert (outcome == 1).tolist() == closed_test(p, 0.05)
    assert ((look == 0) == (outcome == 1)).all()


def test_a_comparison_that_crossed_before_falls_when_another_makes_room():
    different = np.zeros((2, 2, 3), bool)
    different[0, 0, 0:] = True  # crossed at alpha, look 0, but never at alpha / 2
    different[:, 1, 2] = True
    outcome, look = settle(different)
    assert outcome.tolist() == [1, 1] and look.tolist() == [2, 2]


def test_with_equivalence_a_share_is_free_when_both_hypotheses_have_fallen():
    """At most one of them is true, and each claim of either kind may be the false one."""
    different, equivalent = np.zeros((2, 2, 2, 1), bool)
    different[:, 0, 0] = True  # crossed at alpha / 2
    different[0, 1, 0] = True  # crossed at alpha alone
    assert settle(different)[0].tolist() == [1, 1]
    assert settle(different, equivalent)[0].tolist() == [1, 0]
    equivalent[:, 0, 0] = True
    assert settle(different, equivalent)[0].tolist() == [1, 1]


def test_the_interval_and_p_agree_with_the_verdict():
    generator = np.random.default_rng(3)
    for statistic in STATISTIC:
        design = Design((6, 8, 10), "pocock", statistic)
        for shift in (0.0, 0.7, 1.5):
            d = generator.normal(shift, 1, 10)
            crossed = crossings(d, design, 0.05)[0, -1]
            low, high = repeated_interval(d, design)
            assert low <= d.mean() <= high
            assert crossed == (low > 0 or high < 0) == (sequential_p(d, design) <= 0.05)


def test_equivalence_needs_both_sides():
    d = np.random.default_rng(4).normal(0, 0.3, 12)
    design = Design((8, 12))
    assert equivalences(d, 1.0, design, 0.05)[0, -1]
    assert not equivalences(d + 1, 1.0, design, 0.05)[0, -1]
    assert not equivalences(d - 1, 1.0, design, 0.05)[0, -1]
    assert not equivalences(d, 0.1, design, 0.05)[0, -1]


def test_a_wrong_spending_is_named():
    with pytest.raises(ValueError, match="unknown spending 'all'"):
        spent(0.05, 0.5, "all")


@pytest.mark.slow
def test_looking_costs_no_level_and_saves_runs():
    """The specification's numbers, within Monte-Carlo error of 400 studies."""
    null = expect(Design(LOOKS), 0.0, 400)
    assert null.different <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    large = expect(Design(LOOKS), 2.0, 400)
    assert large.found == 1.0
    assert large.runs == pytest.approx(61.5, abs=2.5)
    assert expect(None, 2.0, 400).runs == 100
