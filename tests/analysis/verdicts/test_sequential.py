"""Looks at runs: which seeds count, what a failed run is, which arms go on, and what is shown."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.records.declared import parse
from analysis.records.errors import AnalysisError
from analysis.records.looks import append_look, read_looks
from analysis.records.outcomes import add_collapse
from analysis.report.tables.sequential import say_look
from analysis.verdicts import sequential
from tests.analysis.synthetic import change, make_run

BLOCK = {
    "primary": "nll",
    "baseline": "kd",
    "families": {"variants": {"against": "kd", "arms": ["combined", "perturbation"]}},
    "sequential": {"looks": [6, 8, 10], "spending": "pocock"},
}


def runs_of(effects, seeds=range(10), sets=(0,), noise=0.05, statuses=None):
    """A table of runs: baseline and variants with an effect each."""
    rows = []
    for number in sets:
        for seed in seeds:
            generator = np.random.default_rng([number, seed])
            for arm, effect in {"kd": 0.0, **effects}.items():
                status = (statuses or {}).get((arm, number, seed), "done")
                value = 0.5 + effect + noise * generator.normal()
                rows.append(
                    {"run": f"{arm}-{number}-{seed}", "arm": arm, "data": "digits", "model": "m", "teacher_set": number,
                     "seed": seed, "status": status, "nll": value if status == "done" else None}
                )  # fmt: skip
    return pd.DataFrame(rows)


def study(**more):
    return parse(BLOCK | more, "test")


def stand(runs, declared, n, sets=(0,)):
    return {s["variant"]: s for s in sequential.stand(runs, declared, list(range(n)), list(sets))}


def test_a_large_difference_is_found_and_its_arm_stops():
    runs = runs_of({"combined": -0.5, "perturbation": 0.0})
    found = stand(runs, study(), 8)
    assert (found["combined"]["verdict"], found["combined"]["decided"]) == ("better", 2)
    assert found["perturbation"]["verdict"] == "open"
    assert sequential.open_arms(list(found.values())) == {("digits", "m", "kd"), ("digits", "m", "perturbation")}
    assert stand(runs_of({"combined": 0.5, "perturbation": 0}), study(), 8)["combined"]["verdict"] == "worse"


def test_at_the_last_look_nothing_stays_open():
    found = stand(runs_of({"combined": 0.0, "perturbation": 0.0}), study(), 10)
    assert {s["verdict"] for s in found.values()} == {"inconclusive"}
    assert sequential.open_arms(list(found.values())) == set()


def test_where_most_seeds_tie_there_is_no_interval_but_how_many_do_not():
    """Such as those in which neither arm collapsed: a mean of -.02 beside [0, 0] would say that it is known to be none."""
    runs = runs_of({"combined": 0.0, "perturbation": -0.5}, seeds=range(30), noise=0.0)
    for seed, value in ((2, 1.0), (4, -0.6)):
        runs.loc[(runs["arm"] == "combined") & (runs["seed"] == seed), "nll"] = value
    declared = study(sequential={"looks": [10, 20, 30], "spending": "pocock", "statistic": "rank"})
    look = {"look": 3, "looks": [10, 20, 30], "seeds": list(range(30)), "runs": 90, "primary": "nll"}
    _, tied, _ = say_look(look | {"standings": list(stand(runs, declared, 30).values())})
    assert "NLL -0.0200, repeated interval none: 1 seeds higher, 1 lower, the others tie, n = 30" in tied


def test_an_arm_that_stopped_keeps_its_look():
    """Its later seeds are not there; what it was found at stays, and the others go on."""
    runs = runs_of({"combined": -0.5, "perturbation": 0.0})
    runs = runs[~((runs["arm"] == "combined") & (runs["seed"] >= 8))]
    found = stand(runs, study(), 10)
    assert (found["combined"]["n"], found["combined"]["decided"]) == (8, 2)
    assert found["perturbation"]["n"] == 10


def test_a_seed_counts_when_all_sets_have_ended():
    runs = runs_of({"combined": -0.5, "perturbation": 0.0}, sets=(0, 1))
    assert stand(runs, study(), 8, (0, 1))["combined"]["n"] == 8
    runs = runs[~((runs["arm"] == "combined") & (runs["teacher_set"] == 1) & (runs["seed"] == 7))]
    assert stand(runs, study(), 8, (0, 1))["combined"]["n"] == 6
    runs.loc[(runs["arm"] == "combined") & (runs["seed"] == 5), "status"] = "interrupted"
    assert stand(runs, study(), 8, (0, 1))["combined"]["n"] == 0


@pytest.mark.parametrize("statistic", ["mean", "rank"])
def test_failed_runs_are_the_worst(statistic):
    """As good an arm as any, but three of its runs are gone: what is left of it is not better."""
    declared = study(sequential={**BLOCK["sequential"], "statistic": statistic})
    runs = runs_of({"combined": -0.5, "perturbation": 0.0})
    assert stand(runs, declared, 10)["combined"]["verdict"] == "better"
    gone = {("combined", 0, seed): "diverged" for seed in (1, 3, 4)}
    runs = runs_of({"combined": -0.5, "perturbation": 0.0}, statuses=gone)
    found = stand(runs, declared, 10)["combined"]
    assert found["verdict"] != "better"
    for seed in (1, 3, 4):
        assert found["differences"][seed] == "inf" if statistic == "rank" else found["differences"][seed] >= 0
    both = gone | {("kd", 0, seed): "failed" for seed in (1, 3, 4)}
    runs = runs_of({"combined": -0.5, "perturbation": 0.0}, statuses=both)
    found = stand(runs, declared, 10)["combined"]
    assert found["differences"][1] == 0, "where both failed neither is worse"


@pytest.mark.parametrize("statistic", ["mean", "rank"])
def test_a_look_at_runs_that_have_all_failed_decides_nothing(statistic):
    """No run has a metric, so the table has no column of any."""
    declared = study(sequential={**BLOCK["sequential"], "statistic": statistic})
    gone = {(arm, 0, seed): "failed" for arm in ("kd", "combined", "perturbation") for seed in range(10)}
    runs = runs_of({"combined": 0.0, "perturbation": 0.0}, statuses=gone).drop(columns="nll")
    look = sequential.entry(runs, declared, list(range(6)), [0], 1, "d", None, "2026-01-01T00:00:00")
    assert len(look["failed"]) == 18
    assert {standing["verdict"] for standing in look["standings"]} == {"open"}


def test_no_later_look_changes_what_a_failed_run_was():
    runs = runs_of({"combined": -0.2, "perturbation": 0.0}, statuses={("combined", 0, 2): "failed"})
    early = stand(runs, study(), 6)["combined"]["differences"]
    runs.loc[runs["run"] == "kd-0-9", "nll"] = 50.0
    assert stand(runs, study(), 10)["combined"]["differences"][:6] == early


def test_seeds_that_come_later_do_not_turn_what_was_found():
    """The second step of a ladder goes on, and with it both arms of the first, which was found better at look 2."""
    declared = study(families={"steps": {"ladder": ["kd", "combined", "perturbation"]}})
    runs = runs_of({"combined": -0.5, "perturbation": -0.5})
    assert stand(runs, declared, 8)["combined"]["verdict"] == "better"
    runs.loc[(runs["arm"] != "kd") & (runs["seed"] >= 8), "nll"] = 9.0
    found = stand(runs, declared, 10)["combined"]
    assert found["n"] == 10 and found["statistic"] > 0
    assert (found["verdict"], found["decided"]) == ("better", 2)


def test_arms_that_are_not_compared_change_nothing():
    lost = {("combined", 0, 2): "failed"}
    alone = runs_of({"combined": -0.2, "perturbation": 0.0}, statuses=lost)
    among = runs_of({"combined": -0.2, "perturbation": 0.0, "other": 40.0}, statuses=lost)
    assert stand(among, study(), 8) == stand(alone, study(), 8)


def test_what_an_arm_has_not_measured_is_no_failure_of_it():
    """A plain student has no members, and so no barrier between any."""
    runs = runs_of({"combined": 0.0})
    runs["barrier"] = np.where(runs["arm"] == "combined", 0.3, np.nan)
    declared = study(primary="barrier", families={"f": {"pairs": [["combined", "kd"]]}})
    with pytest.raises(AnalysisError, match="10 finished runs have no barrier"):
        stand(runs, declared, 8)


def test_equivalence_ends_a_comparison():
    declared = study(margins={"nll": 0.2})
    found = stand(runs_of({"combined": 0.0, "perturbation": 0.0}, noise=0.02), declared, 8)
    assert {s["verdict"] for s in found.values()} == {"equivalent"}
    assert found["combined"]["p_equivalence"] <= 0.05


def test_a_study_of_collapse_counts_collapsed_runs():
    """Two arms with the same accuracies, but that one of them collapses in 7 of 10 seeds."""
    block = {"primary": "collapsed", "families": {"f": {"pairs": [["combined", "kd"]]}}, "sequential": {"looks": [10]}}
    declared = parse(block | {"sequential": {"looks": [10], "statistic": "rank"}}, "test")
    runs = runs_of({"combined": 0.0}).assign(acc=0.9, teacher_acc=0.95)
    runs.loc[(runs["arm"] == "kd") & (runs["seed"] < 7), "acc"] = 0.3
    found = stand(add_collapse(runs, "collapsed", declared.collapse), declared, 10)["combined"]
    assert (found["verdict"], found["p"]) == ("better", pytest.approx(2 / 2**7))
    assert found["differences"] == [-1.0] * 7 + [0.0] * 3
    runs.loc[(runs["arm"] == "kd") & (runs["seed"] > 1), "acc"] = 0.9
    assert (
        stand(add_collapse(runs, "collapsed", declared.collapse), declared, 10)["combined"]["verdict"] == "inconclusive"
    )


def write_study(folder, seeds, block=BLOCK):
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        for method, effect in (("kd", 0.0), ("combined", -0.3), ("perturbation", 0.0)):
            value = 0.5 + effect + 0.05 * generator.normal()
            make_run(folder, method, seed, metrics={"nll": value}, study=block, files=False)


def take_two(folder):
    """Eight seeds, and the looks at six and at eight of them."""
    write_study(folder, 8)
    from analysis.records.loading import load

    seeds, previous = list(range(8)), None
    for number, n in enumerate((6, 8), 1):
        look = sequential.entry(load(folder), study(), seeds[:n], [0], number, "d", previous, "2026-01-01T00:00:00")
        previous = append_look(folder, look)["digest"]


def test_the_looks_are_shown_and_nothing_beside_them(tmp_path, capsys):
    write_study(tmp_path, 5)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "before its first look, at 6 seeds: 15 runs so far, nothing is judged" in out
    assert "better" not in out and "p =" not in out

    take_two(tmp_path)
    assert main([str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("1 of 3 6 18 0", "combined - kd better", "sequential p", "repeated 95 % interval", "boundary",
                  "The mean difference of a study that stopped is inflated", "its next look is at 10 seeds"):  # fmt: skip
        assert words in out
    assert len(read_looks(tmp_path)) == 2
    assert main(["contrasts", str(tmp_path)]) == 0
    assert "do not hold for it; `table` has its looks" in capsys.readouterr().err


def another_run(folder):
    make_run(folder, "combined", 3, metrics={"nll": 0.9}, study=BLOCK, files=False)


def one_less(folder):
    shutil.rmtree(next(folder.glob("perturbation-*-s5-*")))


@pytest.mark.parametrize("change", [another_run, one_less])
def test_looks_of_other_runs_are_not_shown(change, tmp_path, capsys):
    take_two(tmp_path)
    change(tmp_path)
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "are not those that look 2 saw" in said.err
    assert not said.out


def test_looks_of_another_study_are_not_shown_and_runs_of_none_are_named(tmp_path, capsys):
    take_two(tmp_path)
    text = json.dumps({"study": BLOCK | {"alpha": 0.2}})
    (tmp_path / "later.yaml").write_text(text)
    assert main([str(tmp_path), "--study", str(tmp_path / "later.yaml")]) == 2
    assert "the looks were taken at alpha 0.05, not 0.2 as the study declares" in capsys.readouterr().err
    (tmp_path / "later.yaml").write_text(json.dumps({"study": BLOCK}))
    for directory in tmp_path.glob("combined-*"):
        change(directory, "config.study", None)
    assert main([str(tmp_path), "--study", str(tmp_path / "later.yaml")]) == 0
    assert "8 of these runs do not declare this study" in capsys.readouterr().out


def test_an_export_has_no_looks(tmp_path, capsys):
    take_two(tmp_path)
    table = str(tmp_path / "runs.csv")
    assert main(["export", str(tmp_path), "-o", table]) == 0
    assert main([table]) == 2
    assert "its looks.jsonl lies in its folder, which is what to give" in capsys.readouterr().err
