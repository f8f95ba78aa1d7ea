"""Verdicts: what is claimed, what is not, and in which words."""

import numpy as np
import pytest

from analysis.inference import power, simulation, statistics
from analysis.records.declared import study_of
from analysis.records.errors import AnalysisWarning
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.verdicts import contrasts, factorial, words
from analysis.verdicts.contrasts import compute, judge
from tests.analysis.differences import contrast, one
from tests.analysis.synthetic import make_run, make_study

DECLARED = {
    "question": "Which part helps?",
    "primary": "nll",
    "baseline": "ensemble_kd",
    "margins": {"nll": 0.02, "acc": 0.005},
    "arms": {"lbe_tdiv": {"method.name": "combined", "method.student_term": False}},
    "families": {
        "variants": {"against": "ensemble_kd", "arms": ["weight_averaging", "perturbation", "combined"]},
        "ladder": {"ladder": ["kd", "ensemble_kd", "weight_averaging", "lbe_tdiv", "combined"]},
        "parts": {
            "factorial": {
                "neither": "ensemble_kd",
                "first": "weight_averaging",
                "second": "perturbation",
                "both": "lbe_tdiv",
                "names": ["weight averaging", "perturbation"],
            }
        },
        "own": [["combined", "lbe_tdiv"]],
    },
}


STRONG = np.array([0.11, 0.1, 0.09, 0.12, 0.1, 0.08, 0.1, 0.11, 0.09, 0.1])


def test_direction_follows_the_metric():
    assert one(-STRONG).verdict == "better"
    assert one(STRONG).verdict == "worse"
    assert one(STRONG, metric="acc").verdict == "better"
    assert one(-STRONG, metric="acc").verdict == "worse"


def test_a_strong_effect_with_three_seeds_is_not_claimed_and_says_why():
    family = judge([contrast(-STRONG[:3]) for _ in range(4)])
    assert {c.verdict for c in family} == {"inconclusive"}
    assert "n = 3 cannot reach p < .05 with this test in a family of 4; 8 seeds would." in family[0].words
    assert np.isnan(family[0].detectable)
    assert "The paired t alone gives p = " in family[0].words
    assert words.too_few(family) == (
        "Nothing can be established with 3 seeds, whatever the differences: no p of these 4 comparisons could have been "
        "below 1; 8 seeds could. The tables have the estimates."
    )
    assert len(words.limits(family)) == 1  # the teacher set: the rest is said already
    assert words.limits([*family, one(-STRONG)])[1].endswith("8 seeds would.")


def test_eight_seeds_would():
    family = judge([contrast(-STRONG[:8]) for _ in range(4)])
    assert {c.verdict for c in family} == {"better"}
    assert family[0].p_adjusted == family[0].floor_adjusted == 0.03125


@pytest.mark.parametrize("n", range(1, 11))
@pytest.mark.parametrize("k", [1, 4, 10])
def test_no_claim_where_the_floor_lies_above_alpha(n, k):
    for c in judge([contrast(STRONG[:n]) for _ in range(k)]):
        assert (c.floor_adjusted <= 0.05) == (c.verdict == "worse")


def test_the_t_test_may_be_declared_and_is_named():
    found = one(-STRONG[:3], test="t")
    assert found.verdict == "better"
    assert found.floor == 0
    assert any("rests on normal differences" in line for line in words.limits([found]))


def test_equivalence_needs_a_declared_margin():
    small = np.array([0.001, -0.002, 0.001, 0.0005, -0.001, 0.002, -0.0005, 0.001])
    assert one(small).verdict == "inconclusive"
    found = one(small, margin=0.01)
    assert found.verdict == "equivalent"
    assert "equivalent within the margin of 0.0100" in found.words
    assert one(small, margin=0.0005).verdict == "inconclusive"


def test_sure_but_small():
    found = one(-STRONG / 100, margin=0.01)
    assert found.verdict == "better"
    assert "less than the margin" in found.words


def test_unsettled_contrasts_say_what_would_have_been_found():
    noisy = np.random.default_rng(0).normal(0, 0.1, 8)
    found = one(noisy, margin=0.02)
    assert found.verdict == "inconclusive"
    sd = noisy.std(ddof=1)
    largest = power.largest_sd(sd, 8)
    assert found.needed == power.pairs_needed(sd, 0.02) > power.pairs_needed(sd, 0.02, test="t") > 8
    assert found.needed_high == power.pairs_needed(largest, 0.02) > power.MOST_SEEDS > found.needed
    assert found.detectable_high == pytest.approx(power.detectable(largest, 8))
    assert found.detectable == pytest.approx(power.detectable(sd, 8))
    assert found.detectable > power.detectable(sd, 8, test="t")
    assert found.words.endswith(
        f"8 seeds find a difference of {found.detectable:.4f} to {found.detectable_high:.4f} with 80 % power; "
        f"the margin of 0.0200 needs {found.needed} to more than 100."
    )
    assert one(noisy, margin=0.01).words.endswith("; the margin of 0.0100 needs more than 100.")


def test_a_family_makes_less_detectable_and_says_that_it_is_a_bound():
    noisy = np.random.default_rng(0).normal(0, 0.1, 8)
    family = judge([contrast(noisy) for _ in range(4)])
    assert family[0].detectable == pytest.approx(power.detectable(noisy.std(ddof=1), 8, 0.05 / 4))
    assert "with at least 80 % power." in family[0].words


def test_what_others_decide_is_said_before_adjustment():
    found = contrast(np.random.default_rng(0).normal(0, 0.1, 8), role="exploratory")
    found.p_adjusted = 1.0
    (judged,) = judge([found], "BH")
    assert "with 80 % power, before adjustment." in judged.words


def test_edge_cases_have_words_not_errors():
    assert "no pairs" in one([]).words
    assert "One seed says nothing" in one([0.3]).words
    same = one([0.0] * 8, margin=0.01)
    assert same.verdict == "equivalent"
    constant = one([-0.1] * 8)
    assert constant.verdict == "better"
    assert np.isnan(constant.d_z)
    tied = one([-0.1, 0, 0, 0, 0, 0, -0.1, -0.1])
    assert "with 5 tied cannot reach" in tied.words


def test_declared_study_on_runs(tmp_path):
    make_study(tmp_path, study=DECLARED, files=False)
    runs = load(tmp_path)
    declared = study_of(runs)
    found = compute(runs, declared, ["nll", "acc"])
    primary = [c for c in found if c.metric == "nll"]
    assert {c.role for c in primary} == {"primary"}
    assert {c.role for c in found if c.metric == "acc"} == {"exploratory"}
    assert all("Exploratory" in c.words for c in found if c.metric == "acc")
    by = {(c.family, c.variant, c.reference): c for c in primary}
    assert list(by) == [
        ("variants", "weight_averaging", "ensemble_kd"),
        ("variants", "perturbation", "ensemble_kd"),
        ("variants", "combined", "ensemble_kd"),
        ("ladder", "ensemble_kd", "kd"),
        ("ladder", "weight_averaging", "ensemble_kd"),
        ("ladder", "lbe_tdiv", "weight_averaging"),
        ("ladder", "combined", "lbe_tdiv"),
        ("parts", "weight averaging", ""),
        ("parts", "perturbation", ""),
        ("parts", "weight averaging x perturbation", ""),
        ("own", "combined", "lbe_tdiv"),
    ]
    assert by["variants", "combined", "ensemble_kd"].verdict == "better"
    assert by["variants", "combined", "ensemble_kd"].difference == pytest.approx(-0.12, abs=0.01)
    assert by["variants", "combined", "ensemble_kd"].family_size == 3
    # Every number is that of the runs it names.
    c = by["ladder", "combined", "lbe_tdiv"]
    values = runs.set_index("run").loc[list(c.runs)]
    means = values.groupby("arm")["nll"].mean()
    assert c.difference == pytest.approx(means["combined"] - means["lbe_tdiv"])
    assert len(c.runs) == 16
    frame = contrasts.compare(runs)
    assert {"p_adjusted", "floor", "floor_adjusted", "verdict", "words"} <= set(frame.columns)


def test_factorial_effects_by_hand(tmp_path):
    cells = {"ensemble_kd": 0.50, "weight_averaging": 0.46, "perturbation": 0.44, "combined": 0.42}
    for seed in range(8):
        for method, value in cells.items():
            options = {"student_term": False} if method == "combined" else {}
            metrics = {"nll": value + 0.01 * seed + 1e-4 * (seed % 3)}
            make_run(tmp_path, method, seed, metrics=metrics, options=options, study=DECLARED, files=False)
    runs = load(tmp_path)
    declared = study_of(runs)
    found = [c for c in compute(runs, declared, ["nll"]) if c.family == "parts"]
    assert [round(c.difference, 6) for c in found] == [-0.03, -0.05, 0.02]
    # Weight averaging: -.04 without perturbation, -.02 with it.
    table = factorial.cell_means(runs, declared)
    assert table["effect"].round(6).tolist() == [-0.04, -0.02]
    assert [c.verdict for c in found] == ["better", "better", "worse"]
    assert factorial.in_words(found) == (
        "On NLL (n = 8), weight averaging improves it by 0.0300, perturbation improves it by 0.0500, "
        "and together they do less than the two effects add up to."
    )


def test_dropped_pairs_are_named(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "ensemble_kd", seed, files=False)
        make_run(tmp_path, "combined", seed, status="interrupted" if seed == 1 else "done", files=False)
    make_run(tmp_path, "combined", 7, files=False)
    runs = load(tmp_path)
    runs["aurc"] = np.where(runs["seed"] == 2, np.nan, 0.5)
    with pytest.warns(AnalysisWarning) as caught:
        found = compute(runs, Study(), ["nll", "aurc"])
    text = " ".join(str(w.message) for w in caught)
    assert "seed 1, teacher set 0: combined has no finished run" in text
    assert "seed 7, teacher set 0: ensemble_kd has no finished run" in text
    assert "seed 2, teacher set 0: combined has no aurc" in text
    assert found[0].n == 2


def test_seeds_are_the_units_over_teacher_sets(tmp_path):
    make_study(tmp_path, seeds=range(6), sets=range(3), methods=("ensemble_kd", "combined"), clean=False, files=False)
    found = compute(load(tmp_path), Study(), ["nll"])[0]
    assert (found.n, found.pairs, found.sets) == (6, 18, (0, 1, 2))
    assert found.low_sets < found.difference < found.high_sets
    assert found.sets_agreeing == 3
    assert "same sign in 3 of 3 sets." in found.words
    assert "combined is better than ensemble_kd for these 3 teacher sets" in found.words
    assert "For other teachers: [" in found.words
    assert "are about these" in words.limits([found])[0]


def test_one_teacher_set_is_said(small_folder):
    found = compute(load(small_folder), Study(), ["nll"])
    assert "about teacher set 0" in words.limits(found)[0]


def test_families_made_up_afterwards_are_exploratory(study_folder):
    found = compute(load(study_folder), Study(), ["nll"])
    assert {c.family for c in found} == {"variants", "ladder", "factorial"}
    assert {c.role for c in found} == {"exploratory"}


def test_diagnostics_that_an_arm_cannot_have_are_not_compared(study_folder):
    found = compute(load(study_folder), Study())
    barriers = {(c.variant, c.reference) for c in found if c.metric == "barrier"}
    assert barriers == {("combined", "weight_averaging")}


def test_simulated_errors_are_those_of_the_verdicts():
    d = simulation.skewness_two(np.random.default_rng(4), 40, 3, 9)
    p = statistics.guarded(d)
    for family, expected in zip(d, p.min(-1) <= 0.05 / 3, strict=True):
        verdicts = {c.verdict for c in judge([contrast(row) for row in family])}
        assert bool(verdicts & {"better", "worse"}) == expected
