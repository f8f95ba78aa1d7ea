"""What was declared before the runs, by the runs' own records; and what it generalises over."""

import re

import numpy as np
import pytest

from analysis.records.declared import parse, study_of
from analysis.records.errors import AnalysisWarning
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.summary import summarise
from analysis.verdicts.contrasts import compute
from tests.analysis.synthetic import make_run, make_study

BLOCK = {
    "question": "?",
    "families": {
        "variants": {"against": "ensemble_kd", "arms": ["kd", "weight_averaging", "perturbation", "combined"]}
    },
}
TWO = ("ensemble_kd", "combined")


def test_a_study_given_later_decides_nothing(tmp_path):
    make_study(tmp_path, methods=TWO, clean=False, files=False)
    view = summarise(load(tmp_path), parse(BLOCK, "later.yaml"))
    assert {c.role for c in view.found} == {"exploratory"}
    assert (
        "Families are declared in later.yaml; the records do not say so: every verdict is exploratory." in view.limits
    )


def test_the_file_of_the_study_that_the_runs_declare_is_as_good_as_their_records(tmp_path):
    make_study(tmp_path, methods=TWO, clean=False, files=False, study=BLOCK)
    found = compute(load(tmp_path), parse({**BLOCK, "question": "reworded"}, "same.yaml"), ["nll"])
    assert {c.role for c in found} == {"primary"}
    changed = parse({**BLOCK, "alpha": 0.1}, "changed.yaml")
    assert {c.role for c in compute(load(tmp_path), changed, ["nll"])} == {"exploratory"}


def test_runs_made_outside_the_study_make_its_verdicts_exploratory_on_the_page(tmp_path):
    make_study(tmp_path, methods=TWO, clean=False, files=False, study=BLOCK)
    for method in TWO:
        make_run(tmp_path, method, 8, files=False)
    runs = load(tmp_path)
    view = summarise(runs, study_of(runs))
    assert {c.role for c in view.found} == {"exploratory"}
    assert any("2 of 18 runs do not declare this study" in line for line in view.limits)


def test_a_sequential_study_is_decided_by_its_looks_alone(tmp_path):
    """Its runs judged as if their number had been fixed would be a verdict after many looks."""
    block = {**BLOCK, "sequential": {"looks": [4, 8], "spending": "pocock", "statistic": "mean"}}
    make_study(tmp_path, methods=TWO, clean=False, files=False, study=block)
    runs = load(tmp_path)
    view = summarise(runs, study_of(runs))
    assert {c.role for c in view.found} == {"exploratory"}
    assert any("A sequential study, which its looks decide" in line for line in view.limits)


def test_a_family_has_its_declared_size_while_arms_arrive(tmp_path):
    make_study(tmp_path, methods=TWO, clean=False, files=False, study=BLOCK)
    runs = load(tmp_path)
    (found,) = compute(runs, study_of(runs), ["nll"])
    assert found.family_size == 4
    assert found.p_adjusted == pytest.approx(4 * found.p)


def test_a_step_over_an_absent_arm_was_not_declared(tmp_path):
    block = {"families": {"ladder": {"ladder": ["kd", "ensemble_kd", "weight_averaging", "combined"]}}}
    make_study(tmp_path, methods=("kd", "weight_averaging", "combined"), clean=False, files=False, study=block)
    runs = load(tmp_path)
    found = compute(runs, study_of(runs), ["nll"])
    assert [(c.variant, c.reference, c.family_size) for c in found] == [("combined", "weight_averaging", 3)]


def test_fewer_seeds_than_declared_are_a_first_look(tmp_path):
    make_study(tmp_path, methods=TWO, clean=False, files=False, study={**BLOCK, "seeds": 12})
    runs = load(tmp_path)
    with pytest.warns(AnalysisWarning, match="8 of the 12 seeds have run that the study declared"):
        compute(runs, study_of(runs), ["nll"])


def test_more_seeds_than_declared_are_warned_of(tmp_path):
    make_study(tmp_path, methods=TWO, clean=False, files=False, study={**BLOCK, "seeds": 6})
    runs = load(tmp_path)
    with pytest.warns(AnalysisWarning, match="declared 6 seeds and 8 have run"):
        view = summarise(runs, study_of(runs))
    assert any("declared 6 seeds and 8 have run" in line for line in view.limits)


def test_seeds_that_lack_a_teacher_set_leave_by_name(tmp_path):
    make_study(tmp_path, seeds=range(8), sets=range(2), methods=TWO, clean=False, files=False)
    make_study(tmp_path, seeds=range(3, 8), sets=range(2, 3), methods=TWO, clean=False, files=False)
    with pytest.warns(AnalysisWarning) as caught:
        found = compute(load(tmp_path), Study(), ["nll"])[0]
    assert "seed 0, seed 1, seed 2: it lacks teacher set 2" in " ".join(str(w.message) for w in caught)
    assert (found.n, found.pairs, found.sets) == (5, 15, (0, 1, 2))


def test_several_families_say_that_each_has_its_own_level(tmp_path):
    block = {**BLOCK, "families": {**BLOCK["families"], "own": [["combined", "kd"]]}}
    make_study(tmp_path, clean=False, files=False, study=block)
    runs = load(tmp_path)
    assert any(
        "Each of the 2 families is held at .05 by itself" in line for line in summarise(runs, study_of(runs)).limits
    )


def test_a_comparison_of_two_families_is_explained_once(tmp_path):
    block = {**BLOCK, "families": {"first": [["combined", "kd"]], "second": [["kd", "combined"], ["combined", "kd"]]}}
    make_study(
        tmp_path, methods=("kd", "combined"), seeds=range(8), sets=range(2), clean=False, noise=1e-5, study=block
    )
    view = summarise(load(tmp_path), study_of(load(tmp_path)))
    whole, turned, same = view.verdicts
    assert "For other teachers: " in whole
    for text in (turned, same):
        assert re.fullmatch(r"\[second\] .* \(NLL [-+.\d]+ \[.*\], n = 8, Holm p = [.\d]+\)\. See \[first\]\.", text)
    (images,) = (line for line in view.limits if "Other test images" in line)
    assert images.count("combined - kd") == 1 and "kd - combined" not in images


def test_other_test_images_may_change_more_than_other_seeds(tmp_path):
    make_study(tmp_path, seeds=range(8), methods=TWO, clean=False, noise=1e-5)
    view = summarise(load(tmp_path), Study())
    found = next(c for c in view.found if c.metric == "nll")
    assert 0 < found.error_seeds < found.error_images < 0.1
    assert any("Other test images would change more than other seeds" in line for line in view.limits)


def test_the_mark_of_the_best_does_not_depend_on_luck_in_choosing_it(tmp_path):
    """Of two arms that are alike neither is shown to be worse, and an arm that is clearly worse is not marked."""
    generator = np.random.default_rng(0)
    for seed in range(10):
        for method, nll in (("kd", 0.5), ("ensemble_kd", 0.3), ("combined", 0.3)):
            make_run(tmp_path, method, seed, metrics={"nll": nll + 0.01 * generator.normal()}, files=False)
    table = summarise(load(tmp_path), Study()).tables[0]
    column = table.columns.index("NLL")
    marks = {row[0]: row[column].endswith("~") for row in table.rows[2:]}
    assert sorted(marks.values()) == [False, False, True]
    assert not marks["kd"]


def test_arms_that_are_all_tied_are_said_to_be(tmp_path):
    for seed in range(3):
        for method in TWO:
            make_run(tmp_path, method, seed, metrics={"nll": 0.5, "acc": 0.9}, files=False)
    table = summarise(load(tmp_path), Study(), ("acc", "nll")).tables[0]
    assert table.bold == set()
    assert "All arms are tied on ACC %, NLL." in table.notes
