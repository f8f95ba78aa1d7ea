"""The regression gate: a planted regression, an equal variant, too few runs, and everything around them."""

import json

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.inference import statistics
from analysis.records.baseline import freeze, read_baseline
from analysis.records.errors import Mixture
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.verdicts import gate
from analysis.verdicts.check import check, judge_together
from harness.store.record import write_record
from tests.analysis.synthetic import change, make_run


def sweep(folder, method="kd", seeds=range(8), sharpness_error=0.0, loss=0.0, options=None, key=0, **more):
    """Runs whose NLL and accuracy are worse by `loss`, with noise of their own."""
    for seed in seeds:
        generator = np.random.default_rng([seed, key])
        base = 0.5 + 0.02 * np.random.default_rng(seed).normal()
        metrics = {
            "nll": base + loss + sharpness_error + 0.004 * generator.normal(),
            "acc": 0.9 - 0.1 * base - loss / 3 + 0.002 * generator.normal(),
        }
        make_run(folder, method, seed, metrics=metrics, options=options, files=False, **more)
    return folder


@pytest.fixture
def baseline(tmp_path):
    sweep(tmp_path / "old", "kd")
    sweep(tmp_path / "old", "ensemble_kd", loss=-0.03)
    path = tmp_path / "baseline.json"
    assert main(["freeze", str(tmp_path / "old"), "-o", str(path)]) == 0
    return path


def rewrite(baseline, content):
    """Change a baseline file on purpose."""
    baseline.write_text(json.dumps({key: value for key, value in content.items() if key != "digest"}))


def regress(baseline, folder, *more):
    return main(["regress", "--baseline", str(baseline), str(folder), *more])


def test_a_wrong_temperature_is_caught(tmp_path, baseline, capsys):
    sweep(tmp_path / "new", loss=0.08, options={"temperature": 1.0}, key=1)
    assert regress(baseline, tmp_path / "new") == 1
    out = capsys.readouterr().out
    assert "verdict: regression" in out
    assert "temperature: 4.0 -> 1.0" in out


def test_an_equal_variant_passes(tmp_path, baseline, capsys):
    sweep(tmp_path / "new", key=1)
    assert regress(baseline, tmp_path / "new") == 0
    assert "verdict: pass" in capsys.readouterr().out


def test_the_very_same_runs_pass(tmp_path, baseline):
    assert regress(baseline, tmp_path / "old") == 0


def test_a_better_variant_passes(tmp_path, baseline):
    sweep(tmp_path / "new", loss=-0.05, key=1)
    assert regress(baseline, tmp_path / "new") == 0


@pytest.mark.parametrize("n, missing", [(2, 3), (4, 1)])
@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_too_few_runs_are_refused_with_the_number_missing(tmp_path, baseline, capsys, n, missing, loss):
    sweep(tmp_path / "new", seeds=range(n), loss=loss, key=1)
    assert regress(baseline, tmp_path / "new") == 2
    assert f"verdict: not enough runs: {missing} more paired seeds are needed" in capsys.readouterr().out


def test_no_runs_in_common_are_refused(tmp_path, baseline):
    sweep(tmp_path / "new", seeds=range(100, 108), key=1)
    assert regress(baseline, tmp_path / "new") == 2


def test_a_new_variant_needs_a_named_reference(tmp_path, baseline, capsys):
    sweep(tmp_path / "new", "mine", loss=-0.03, key=1)
    assert regress(baseline, tmp_path / "new") == 2
    assert "name what to compare it with by --reference" in capsys.readouterr().err
    assert regress(baseline, tmp_path / "new", "--reference", "ensemble_kd") == 0
    sweep(tmp_path / "bad", "mine", loss=0.05, key=1)
    assert regress(baseline, tmp_path / "bad", "--reference", "ensemble_kd") == 1
    assert regress(baseline, tmp_path / "bad", "--reference", "nobody") == 2


def test_arms_are_matched_by_their_options_not_by_their_names_alone(tmp_path):
    """Loaded alone, `combined[student_term=false]` is called `combined`."""
    clean = {"student_term": False}
    sweep(tmp_path / "old", "combined", loss=-0.2)
    sweep(tmp_path / "old", "combined", options=clean)
    assert main(["freeze", str(tmp_path / "old"), "-o", str(tmp_path / "b.json")]) == 0
    sweep(tmp_path / "new", "combined", options=clean, key=1)
    runs = load(tmp_path / "new")
    assert set(runs["arm"]) == {"combined"}
    checks = gate.regress(read_baseline(tmp_path / "b.json"), runs, cost=None)
    assert [(c.reference, c.verdict) for c in checks[:2]] == [("combined[student_term=false]", gate.PASS)] * 2
    assert [c.variant for c in checks[2:]] == ["combined"]


def test_margins_decide(tmp_path, baseline):
    sweep(tmp_path / "new", loss=0.02, key=1)
    assert regress(baseline, tmp_path / "new", "--margin", "nll=0.05", "--margin", "acc=0.05") == 0
    assert regress(baseline, tmp_path / "new", "--margin", "nll=0.001") == 1


def test_declared_margins_travel_with_the_baseline(tmp_path):
    sweep(tmp_path / "old", study={"margins": {"nll": 0.001}})
    content = freeze(load(tmp_path / "old"), Study(margins={"nll": 0.001}), tmp_path / "b.json")
    assert content["margins"] == {"nll": 0.001}
    assert json.loads((tmp_path / "b.json").read_text()) == content
    sweep(tmp_path / "new", loss=0.02, key=1)
    checks = gate.regress(read_baseline(tmp_path / "b.json"), load(tmp_path / "new"), cost=None)
    assert [(c.metric, c.verdict) for c in checks] == [("nll", gate.REGRESSION)]


def test_cost_is_judged_on_the_same_machine_only(tmp_path, baseline, capsys):
    sweep(tmp_path / "slow", key=1, speed=500.0)
    assert regress(baseline, tmp_path / "slow") == 1
    assert "0.50 of the baseline's speed" in capsys.readouterr().out
    assert regress(baseline, tmp_path / "slow", "--no-cost") == 0
    assert regress(baseline, tmp_path / "slow", "--speed", "0.6") == 0
    content = json.loads(baseline.read_text())
    for row in content["runs"]:
        row["host"] = "elsewhere"
    rewrite(baseline, content)
    assert regress(baseline, tmp_path / "slow") == 0


def test_memory_is_judged_on_accelerators(tmp_path, capsys):
    sweep(tmp_path / "old", device="GPU")
    sweep(tmp_path / "same", key=1, device="GPU")
    sweep(tmp_path / "big", key=1, device="GPU", memory=2.0**31)
    sweep(tmp_path / "cpu", key=1, memory=2.0**31)
    assert main(["freeze", str(tmp_path / "old"), "-o", str(tmp_path / "b.json")]) == 0
    assert regress(tmp_path / "b.json", tmp_path / "same") == 0
    assert regress(tmp_path / "b.json", tmp_path / "big") == 1
    assert "memory" in capsys.readouterr().out
    assert regress(tmp_path / "b.json", tmp_path / "cpu") == 0


def test_another_recipe_is_refused(tmp_path, baseline, capsys):
    sweep(tmp_path / "new", key=1, train={"epochs": 10})
    assert regress(baseline, tmp_path / "new") == 2
    assert "train.epochs: 40 -> 10" in capsys.readouterr().err
    assert regress(baseline, tmp_path / "new", "--allow-mixed", "recipe") == 0
    with pytest.raises(Mixture):
        gate.regress(read_baseline(baseline), load(tmp_path / "new"))


def test_variants_without_new_runs_are_named_but_not_judged(tmp_path, baseline):
    sweep(tmp_path / "new", key=1)
    checks = gate.regress(read_baseline(baseline), load(tmp_path / "new"))
    assert [c.variant for c in checks if c.words.startswith("no new runs")] == ["ensemble_kd"]
    assert gate.outcome(checks) == gate.PASS


def table_of(out):
    return " ".join(out.split())


def test_arms_that_did_not_change_pass_with_any_number_of_runs(tmp_path, baseline, capsys):
    """Beside a new variant, a sweep's other runs are the very same: they must not keep the gate from its verdict."""
    sweep(tmp_path / "few", "kd", seeds=range(2))
    assert main(["freeze", str(tmp_path / "few"), "-o", str(tmp_path / "few.json")]) == 0
    assert regress(tmp_path / "few.json", tmp_path / "few") == 0
    assert "nothing changed" in capsys.readouterr().out


def test_accuracies_that_tie_are_not_the_same_runs(tmp_path):
    for name, nll in (("old", 0.5), ("new", 0.6)):
        make_run(tmp_path / name, "kd", 0, metrics={"acc": 0.9, "nll": nll}, options={"step": nll}, files=False)
    assert main(["freeze", str(tmp_path / "old"), "-o", str(tmp_path / "b.json")]) == 0
    assert regress(tmp_path / "b.json", tmp_path / "new", "--margin", "acc=0.01") == 2


def test_a_baseline_that_is_too_small_is_named_with_what_to_do(tmp_path, capsys):
    """Three frozen seeds: no number of the variant's seeds helps; eight frozen ones, and there is a verdict."""
    runs, path = tmp_path / "runs", tmp_path / "b.json"
    for method in ("kd", "ensemble_kd"):
        sweep(runs, method, seeds=range(3))
    assert main(["freeze", str(runs), "-o", str(path)]) == 0
    sweep(runs, "ensemble_kd", seeds=range(3, 8))
    sweep(runs, "sharper", key=1)
    assert regress(path, runs, "--reference", "ensemble_kd") == 2
    out = table_of(capsys.readouterr().out)
    advice = "the baseline has 3 of ensemble_kd: run 5 of it and freeze again"
    assert f"verdict: not enough runs: 2 more paired seeds are needed; {advice}" in out
    again = tmp_path / "again"
    for method, seeds in (("kd", 3), ("ensemble_kd", 8)):
        sweep(again, method, seeds=range(seeds))
    assert main(["freeze", str(again), "-o", str(path)]) == 0
    sweep(again, "sharper", key=1)
    assert regress(path, again, "--reference", "ensemble_kd") == 0


def test_two_networks_have_a_recipe_each(tmp_path, capsys):
    for place, key in (("old", 0), ("new", 1)):
        for model, epochs in (("preresnet_tiny", 40), ("wrn16_2", 60)):
            sweep(tmp_path / place, "kd", key=key, model=model, train={"epochs": epochs})
    assert main(["freeze", str(tmp_path / "old"), "-o", str(tmp_path / "b.json")]) == 0
    assert regress(tmp_path / "b.json", tmp_path / "new") == 0
    assert "kd on digits x wrn16_2" in capsys.readouterr().out
    sweep(tmp_path / "other", "kd", key=1, model="wrn16_2", train={"epochs": 50})
    assert regress(tmp_path / "b.json", tmp_path / "other") == 2
    assert "train.epochs: 60 -> 50" in capsys.readouterr().err


def configured(folder, group, **options):
    """Set options in the configuration of every run of a folder."""
    for directory in list(folder.iterdir()):
        for name, value in options.items():
            directory = change(directory, f"config.{group}.{name}", value)
    return folder


def test_another_recipe_of_the_teachers_is_refused(tmp_path, baseline, capsys):
    new = configured(sweep(tmp_path / "new", key=1), "teachers", train={"epochs": 77})
    assert regress(baseline, new) == 2
    assert "teachers.train.epochs: None -> 77" in capsys.readouterr().err


def test_what_decides_no_result_is_no_other_recipe(tmp_path, baseline):
    """Nor where an older baseline has kept it."""
    content = json.loads(baseline.read_text())
    for row in content["runs"]:
        row["recipe"] |= {"train.checkpoint_every": 1, "data.root": "/elsewhere", "data.workers": 3}
    rewrite(baseline, content)
    new = configured(sweep(tmp_path / "new", key=1, train={"checkpoint_every": 2}), "data", workers=0, root="/here")
    assert regress(baseline, new) == 0


def test_a_baseline_older_than_data_train_has_trained_on_all(tmp_path, baseline, capsys):
    assert regress(baseline, configured(sweep(tmp_path / "all", key=1), "data", train=None)) == 0
    assert regress(baseline, configured(sweep(tmp_path / "few", key=1), "data", train=100)) == 2
    assert "data.train: None -> 100" in capsys.readouterr().err


def test_students_of_other_teachers_are_marked(tmp_path, baseline, capsys):
    assert regress(baseline, sweep(tmp_path / "same", key=1)) == 0
    assert " * " not in capsys.readouterr().out
    again = [f"digits-set0-m{m}-again" for m in range(4)]
    assert regress(baseline, sweep(tmp_path / "new", key=1, teachers=again)) == 0
    out = table_of(capsys.readouterr().out)
    assert "kd * kd" in out
    assert "* kd against kd: other teachers (digits-set0-m0 -> digits-set0-m0-again); the differences are not" in out
    sweep(tmp_path / "moved", key=1, fingerprint="split1")
    assert regress(baseline, tmp_path / "moved") == 0
    assert "other data (split0 -> split1)" in table_of(capsys.readouterr().out)


@pytest.mark.parametrize("alpha, shown", [("0.05", "[90 % CI]"), ("0.005", "[99 % CI]"), ("0.0125", "[97.5 % CI]")])
def test_the_interval_is_named_by_its_level(tmp_path, baseline, capsys, alpha, shown):
    regress(baseline, sweep(tmp_path / "new", key=1), "--alpha", alpha)
    assert shown in table_of(capsys.readouterr().out)


def fail(folder, *seeds, status="failed", method="kd"):
    """End some runs of a variant badly."""
    for directory in list(folder.glob(f"{method}-*")):
        record = json.loads((directory / "record.json").read_text())
        if record["config"]["seed"] in seeds:
            record |= {"status": status, "metrics": None, "error": {"type": "E", "message": "m", "traceback": ""}}
            write_record(directory, record)
    return folder


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_survivors_do_not_pass(tmp_path, baseline, capsys, status):
    """Three of eight new runs did not end well, and the five others are as good as ever."""
    sweep(tmp_path / "new", key=1, loss=-0.05)
    assert regress(baseline, tmp_path / "new") == 0
    fail(tmp_path / "new", 1, 4, 6, status=status)
    capsys.readouterr()
    assert regress(baseline, tmp_path / "new") == 1
    out = table_of(capsys.readouterr().out)
    assert "3 of 8 runs failed where their partner finished" in out
    assert "verdict: runs failed: 3 runs of kd" in out


def test_a_metric_that_is_no_number_is_no_survivor(tmp_path, baseline, capsys):
    new = sweep(tmp_path / "new", key=1, loss=-0.05)
    runs = load(new)
    runs.loc[runs["seed"] == 3, "nll"] = np.nan
    checks = gate.regress(read_baseline(baseline), runs, cost=None)
    assert [(c.metric, c.verdict) for c in checks[:2]] == [("acc", gate.PASS), ("nll", gate.FAILED)]
    assert gate.outcome(checks) == gate.FAILED


def test_a_failed_run_without_a_partner_is_no_matter_of_the_gate(tmp_path, baseline):
    sweep(tmp_path / "new", seeds=range(10), key=1, loss=-0.05)
    assert regress(baseline, fail(tmp_path / "new", 8, 9)) == 0


def test_a_regression_among_the_survivors_stays_one(tmp_path, baseline, capsys):
    sweep(tmp_path / "new", loss=0.3, key=1)
    assert regress(baseline, fail(tmp_path / "new", 7)) == 1
    assert "verdict: regression" in capsys.readouterr().out


def test_seeds_without_all_teacher_sets_leave_by_name(tmp_path, capsys):
    """With its second teachers the variant is much worse, and only two seeds met them."""
    for number in (0, 1):
        sweep(tmp_path / "old", teacher_set=number)
    assert main(["freeze", str(tmp_path / "old"), "-o", str(tmp_path / "b.json")]) == 0
    sweep(tmp_path / "new", key=1)
    assert regress(tmp_path / "b.json", tmp_path / "new") == 0
    sweep(tmp_path / "new", seeds=range(2), key=2, loss=0.3, teacher_set=1)
    capsys.readouterr()
    assert regress(tmp_path / "b.json", tmp_path / "new") == 2
    out = table_of(capsys.readouterr().out)
    assert "2 paired seeds cannot settle it" in out
    assert "kd: left out of the tests, seed 2: it lacks teacher set 1" in out
    fail(tmp_path / "new", 6)
    assert regress(tmp_path / "b.json", tmp_path / "new") == 1, "a failed run is not left out with its seed"


def test_places_without_new_runs_are_named_but_not_judged(tmp_path, capsys):
    for model in ("preresnet_tiny", "wrn16_1"):
        sweep(tmp_path / "old", model=model)
    assert main(["freeze", str(tmp_path / "old"), "-o", str(tmp_path / "b.json")]) == 0
    assert regress(tmp_path / "b.json", sweep(tmp_path / "new", key=1)) == 0
    checks = gate.regress(read_baseline(tmp_path / "b.json"), load(tmp_path / "new"), cost=None)
    assert [(c.variant, c.words) for c in checks if not c.metric] == [
        ("kd on digits x wrn16_1", "no new runs (not judged)")
    ]


def many(generator, variants=5, seeds=8, metrics=2):
    """Differences of variants that do not differ, from one frozen baseline."""
    frozen = generator.normal(size=(1, metrics, seeds))
    return generator.normal(size=(variants, metrics, seeds)) - frozen


def test_what_is_judged_together_is_corrected():
    """Five equal variants on two metrics: without a correction every fifth gate has a regression."""
    generator = np.random.default_rng(0)
    alone = together = 0
    for _ in range(300):
        checks = [check(d, "nll", 0.01, 0.05, "guarded") for row in many(generator) for d in row]
        alone += any(c.verdict == gate.REGRESSION for c in checks)
        together += any(c.verdict == gate.REGRESSION for c in judge_together(checks, 0.05))
    assert alone / 300 > 0.1
    assert together / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_following_the_advice_holds_the_level():
    """Looking at 5, 6, ... 12 seeds until it passes: a loss at the margin passes no more often than alpha."""
    d = np.random.default_rng(1).normal(-1.0, 1.0, (1500, 12))
    naive, spending = np.zeros((2, 1500), bool)
    for n in range(5, 13):
        p = statistics.noninferiority(d[:, :n], 1.0)
        naive |= p <= 0.05
        spending |= p <= gate.level_of_look(0.05, n, 12, range(5, n))
    assert naive.mean() > 0.07
    assert spending.mean() <= 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5
    assert gate.level_of_look(0.05, 12, 12) == pytest.approx(0.05), "who waits has all of it"


def test_looks_are_remembered_beside_the_baseline(tmp_path, baseline, capsys):
    new = sweep(tmp_path / "new", seeds=range(6), key=1)
    regress(baseline, new)
    first = table_of(capsys.readouterr().out)
    assert "0 days ago, not used before" in first
    regress(baseline, new)
    assert "not used before" in table_of(capsys.readouterr().out), "the same runs are the same look"
    sweep(new, seeds=range(6, 8), key=1)
    regress(baseline, new)
    again = table_of(capsys.readouterr().out)
    assert "used for 1 other set of runs" in again
    left = gate.level_of_look(0.05, 8, 8, [6])
    assert left < 0.01
    assert f"(level {left:.2g}: a look at 8 of 8 seeds)" in again
    uses = baseline.with_name(baseline.name + ".uses.jsonl")
    uses.write_text(uses.read_text().replace('"seeds": 6', '"seeds": 1') + '{"torn')
    regress(baseline, new)
    assert "not used before" in table_of(capsys.readouterr().out), "what was changed counts for nothing"


def test_another_code_is_another_variant(tmp_path, baseline, capsys):
    regress(baseline, sweep(tmp_path / "new", seeds=range(6), key=1))
    regress(baseline, sweep(tmp_path / "mended", key=2, revision="b" * 40))
    assert "(level" not in table_of(capsys.readouterr().out).split("verdict:")[-2]


def test_a_baseline_says_when_it_was_frozen(tmp_path, baseline, capsys):
    content = json.loads(baseline.read_text())
    rewrite(baseline, content | {"frozen": "2026-01-01T00:00:00"})
    regress(baseline, sweep(tmp_path / "new", key=1))
    assert "baseline frozen 2026-01-01, " in table_of(capsys.readouterr().out)
    rewrite(baseline, content | {"frozen": "yesterday"})
    assert regress(baseline, tmp_path / "new") == 2
    assert "does not say when it was frozen, but 'yesterday'" in capsys.readouterr().err
