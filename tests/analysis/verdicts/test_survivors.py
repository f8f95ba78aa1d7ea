"""Failed and collapsed runs count, whatever the runs that survived say."""

import numpy as np
import pytest

from analysis.inference import statistics
from analysis.records.declared import study_of
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.summary import summarise
from analysis.verdicts.contrasts import compare, compute
from tests.analysis.differences import one
from tests.analysis.synthetic import change, make_run

CLEAR = [-0.11, -0.1, -0.09, -0.12, -0.1, -0.08, -0.1, -0.11]


def test_survivors_alone_do_not_make_a_variant_better():
    alone, whole = one(CLEAR), one([*CLEAR, *[np.inf] * 4])
    assert alone.verdict == "better"
    assert (whole.verdict, whole.n, whole.survivors) == ("inconclusive", 12, 8)
    assert whole.difference == pytest.approx(alone.difference)
    assert "over 8 of 12 seeds without a failed run" in whole.words
    assert np.isinf(whole.high_typical)


def test_a_variant_that_always_fails_is_worse_and_one_that_never_does_is_better():
    assert one([np.inf] * 8).verdict == "worse"
    assert one([-np.inf] * 8).verdict == "better"
    assert one([-np.inf] * 8, metric="acc").verdict == "worse"


def test_one_failure_among_many_clear_gains_is_said_of_the_typical_run(tmp_path):
    for seed in range(12):
        make_run(tmp_path, "ensemble_kd", seed, metrics={"nll": 0.5}, files=False)
        status = "diverged" if seed == 3 else "done"
        make_run(tmp_path, "combined", seed, metrics={"nll": 0.4 + seed / 1000}, status=status, files=False)
    (found,) = [c for c in compute(load(tmp_path), Study(), ["nll"]) if c.family == "variants"]
    assert found.verdict == "better"
    assert "The typical run of combined is better than that of ensemble_kd" in found.words
    assert "Failed: 1 of 12 [0.2, 38.5] % against 0 of 12 [0.0, 26.5] % (McNemar p = 1)." in found.words
    (lost,) = found.outcomes
    assert (lost.what, lost.variant.count, lost.reference.count) == ("failed", 1, 0)


def test_a_table_shows_failures_in_the_row_and_names_their_runs(tmp_path):
    for seed in range(12):
        make_run(tmp_path, "ensemble_kd", seed, metrics={"nll": 0.5 + seed / 100}, files=False)
        status = "failed" if seed in (1, 4, 6, 9) else "done"
        make_run(tmp_path, "combined", seed, metrics={"nll": 0.4 + seed / 100}, status=status, files=False)
    view = summarise(load(tmp_path), Study())
    table = view.tables[0]
    row = dict(zip(table.columns, table.rows[-1], strict=True))
    assert row["n"] == "8 (4 of 12 failed)"
    assert row["worst NLL"] == "failed"
    assert row["verdict"] == "(inconclusive)"
    assert len(table.runs[-1]) == 12
    assert "the worst of their pair" in " ".join(view.missing)


def test_a_failed_run_without_a_partner_and_one_on_both_sides_say_nothing(tmp_path):
    for seed in range(4):
        make_run(tmp_path, "ensemble_kd", seed, status="failed" if seed == 0 else "done", files=False)
        make_run(tmp_path, "combined", seed, status="failed" if seed == 0 else "done", files=False)
    make_run(tmp_path, "combined", 7, status="failed", files=False)
    with pytest.warns(UserWarning, match="seed 0, teacher set 0: runs failed on both sides"):
        found = compute(load(tmp_path), Study(), ["nll"])[0]
    assert (found.n, found.survivors) == (3, 3)


def collapsing(tmp_path, **study):
    for seed in range(24):
        for method, nll in (("ensemble_kd", 0.09), ("weight_averaging", 0.08)):
            lost = method == "weight_averaging" and seed == 7
            nll += 0.002 * np.sin(seed + len(method))
            metrics = {"nll": 2.1 if lost else nll, "acc": 0.388 if lost else 0.97}
            directory = make_run(tmp_path, method, seed, metrics=metrics, files=False, study=study or None)
            change(directory, "metrics.teacher.test.acc", 0.965)
    return load(tmp_path)


def test_one_collapsed_run_hides_the_mean_and_not_the_typical_run(tmp_path):
    runs = collapsing(tmp_path)
    view = summarise(runs, Study())
    (found,) = [c for c in view.found if c.family == "variants" and c.metric == "nll"]
    assert found.verdict == "inconclusive"  # the mean decides, and cannot
    assert found.low < -0.05 < 0.05 < found.high
    assert -0.013 < found.low_typical < found.typical < found.high_typical < -0.007
    assert found.p_rank < 1e-4
    assert "Collapsed: 1 of 24 [0.1, 21.1] % against 0 of 24 [0.0, 14.2] %" in found.words
    assert "more than 100 seeds" not in found.words  # no margin was declared
    row = dict(zip(view.tables[0].columns, view.tables[0].rows[-1], strict=True))
    assert row["collapsed [95 % CI]"] == "1 of 24 [0.1, 21.1] %"
    assert row["worst NLL"] == "2.1000"
    assert row["typical NLL"].startswith("0.08")
    assert row["rank p"] == "< .0001"
    assert {"typical", "p_rank", "outcomes"} <= set(compare(runs, Study(), ["nll"]).columns)


def test_a_mean_that_collapsed_runs_make_is_not_said_of_the_typical_run(tmp_path):
    """Seven runs of 24 collapse and the others are better: the mean is worse, the typical run is not."""
    for seed in range(24):
        lost = seed % 3 == 0 and seed < 21
        for method, nll in (("ensemble_kd", 0.5), ("weight_averaging", 1.5 if lost else 0.45)):
            metrics = {"nll": nll, "acc": 0.2 if lost and method != "ensemble_kd" else 0.97}
            make_run(tmp_path, method, seed, metrics=metrics, files=False)
    (found,) = [c for c in compute(load(tmp_path), Study(), ["nll"]) if c.family == "variants"]
    assert found.verdict == "worse" and found.difference > 0 > found.typical
    assert "On average weight_averaging is worse than ensemble_kd; of the typical run that is not shown" in found.words
    assert "The typical run" not in found.words


def test_runs_that_are_equivalent_but_for_failed_ones_are_so_in_the_typical_run():
    found = one([*np.linspace(-0.001, 0.001, 18), np.inf, np.inf], margin=0.02)
    assert found.verdict == "equivalent"
    assert found.words.startswith("The typical runs of new and old are equivalent within the margin")


def test_where_nobody_can_tell_what_collapsed_none_is_said_not_to_have(tmp_path):
    """A student without a teacher and without members, at the accuracy of a guess."""
    for seed in range(3):
        make_run(tmp_path, "ensemble_kd", seed, files=False)
        make_run(tmp_path, "supervised", seed, metrics={"acc": 0.1}, files=False)
    runs = load(tmp_path)
    runs.loc[runs["arm"] == "supervised", "teacher_acc"] = np.nan
    view = summarise(runs, Study())
    rows = {row[0]: dict(zip(view.tables[0].columns, row, strict=True)) for row in view.tables[0].rows}
    assert rows["supervised"]["collapsed [95 % CI]"] == "-"
    assert rows["ensemble_kd"]["collapsed [95 % CI]"].startswith("0 of 3")


def test_what_collapse_means_is_declared(tmp_path):
    runs = collapsing(tmp_path, question="?", collapse={"accuracy": 0.3})
    study = study_of(runs)
    assert study.collapse == {"accuracy": 0.3, "barrier": 1.0}
    assert all(c.outcomes == () for c in compute(runs, study, ["nll"]))


def test_a_barrier_between_members_is_a_collapse(tmp_path):
    for seed in range(3):
        for method in ("ensemble_kd", "combined"):
            directory = make_run(tmp_path, method, seed, diagnostics=True, files=False)
            if method == "combined" and seed == 1:
                change(
                    directory, "diagnostics.barriers", {"0-1": {"t": [0.0, 1.0], "loss": [0.3, 0.3], "barrier": 2.2}}
                )
    (found,) = [c for c in compute(load(tmp_path), Study(), ["nll"]) if c.family == "variants"]
    assert [(o.what, o.variant.count) for o in found.outcomes] == [("collapsed", 1)]


def test_differences_and_equivalence_share_a_level():
    p, q = statistics.holm_either([0.01, 0.5], [0.4, 0.001])
    assert (p.tolist(), q.tolist()) == ([0.02, 0.8], [0.8, 0.002])
    p, _ = statistics.holm_either([0.01, 0.03], [0.001, 0.9])  # the first is settled altogether: its place is free
    assert p.tolist() == [0.02, 0.03]
