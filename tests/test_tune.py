"""Options that are chosen on validation data, and what becomes of them."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import pytest
import yaml

import analysis
from analysis.records.errors import Mixture
from analysis.records.study import Study
from analysis.report.summary import summarise
from harness import tune
from harness.app import run
from harness.config import ConfigError
from harness.store.identity import run_directory
from harness.store.record import digest_of, read_record, write_record
from harness.sweep.tuned import Choice, apply, read_tuned, write_tuned
from harness.tuning import choose
from tests import damage
from tests.planted import plant
from tests.running import configure

SMALL = ("train=smoke", "train.steps_per_epoch=12", "teachers.size=2", "evaluate.diagnostics=false")
TUNE = "+tune={trials: 2, grids: {supervised: {}, kd: {temperature: [1.0, 4.0, 64.0], alpha: [1.0, 0.5]}}}".replace(
    "+", ""
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Path:
    """The folder of a tuning."""
    runs = tmp_path_factory.mktemp("tuned") / "trials"
    assert tune.main([TUNE, "seed=100,101", *SMALL, f"runs={runs}"]) == 0
    return runs


def test_the_trial_of_the_lowest_validation_nll_is_chosen(tuned):
    """Over its seeds, of as many trials as every method gets; and again, with nothing left to run."""
    found = yaml.safe_load((tuned / "tuned.yaml").read_text())
    records = [read_record(place) for place in tuned.glob("digits-*-s10?-*")]
    trials: dict[tuple, list[float]] = {}
    for record in records:
        if record["config"]["method"]["name"] == "kd":
            options = tuple(record["config"]["method"][key] for key in ("temperature", "alpha"))
            trials.setdefault(options, []).append(record["metrics"]["student"]["validation"]["nll"])
    assert {len(values) for values in trials.values()} == {2} and len(trials) == 2 and len(records) == 6
    best = min(trials, key=lambda options: sum(trials[options]))
    choice = found["methods"]["kd"]
    assert choice["options"] == {"temperature": best[0], "alpha": best[1]} and choice["trials"] == 2
    assert choice["nll"] == pytest.approx(sum(trials[best]) / 2) and found["methods"]["supervised"]["options"] == {}
    before = {place: place.stat().st_mtime_ns for place in tuned.glob("*/record.json")}
    assert tune.main([TUNE, "seed=100,101", *SMALL, f"runs={tuned}"]) == 0
    assert before == {place: place.stat().st_mtime_ns for place in tuned.glob("*/record.json")}


def test_a_study_gets_what_was_tuned_and_its_table_says_so(tuned, tmp_path):
    """Tuned rows stand beside tuned rows only, unless somebody allows it."""
    file = tuned / "tuned.yaml"
    common = (*SMALL, f"runs={tmp_path}", f"bank={tuned}/teachers", "seed=0,1")
    assert run(["-m", "method=kd,supervised", *common, f"tuned={file}"]) == 0
    runs = analysis.load(tmp_path)
    (kd,) = {str(config["method"]) for config in runs["config"] if config["method"]["name"] == "kd"}
    chosen = yaml.safe_load(file.read_text())
    assert all(f"'{key}': {value}" in kd for key, value in chosen["methods"]["kd"]["options"].items())
    about = {"digest": chosen["digest"], "trials": 2, "over": ["alpha", "temperature"], "on": "digits x preresnet_tiny"}
    about["seeds"] = [100, 101]
    assert [config["tuned"] for config in runs["config"] if config["method"]["name"] == "kd"] == [about] * 2
    notes = " ".join(summarise(runs, Study()).tables[0].notes)
    assert (
        "kd over alpha, temperature (2 trials on digits x preresnet_tiny); supervised over nothing (1 trials on"
        in notes
    )
    assert run([*common[:-1], "method=kd", "seed=0", f"tuned={file}"]) == 0  # the same run, alone
    assert len(list(tmp_path.glob("digits-*"))) == 4
    assert run(["-m", "method=ensemble_kd", *common]) == 0
    with pytest.raises(Mixture, match="tuned"):
        analysis.load(tmp_path)
    assert len(analysis.load(tmp_path, allow=("recipe",))) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["method=kd", "method.temperature=2"], "method.temperature=2: tuned="),
        (["method=kd", "seed=100"], "seed=100 was tuned on"),
        (["method=combined"], "knows supervised, kd, not method=combined"),
        (["seed=0"], "needs method=NAME"),
        (["-m", "method=kd,supervised", "seed=0,101"], "seed=101 was tuned on"),
        (["method=kd", 'seed="100"'], "seed=100 was tuned on"),
        (["method=kd", "seed=${train.batch_size}", "train.batch_size=100"], "seed=100 was tuned on"),
        (["-m", "method=kd,supervised", "seed='0','101'"], "seed=101 was tuned on"),
    ],
)
def test_what_was_tuned_is_not_said_otherwise(tuned, tmp_path, capsys, arguments, said):
    assert run([*arguments, *SMALL, f"tuned={tuned}/tuned.yaml", f"runs={tmp_path}"]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_changed_file_is_refused(tuned, tmp_path, capsys):
    text = (tuned / "tuned.yaml").read_text()
    file = tmp_path / "tuned.yaml"
    for changed, said in {
        text.replace("nll: ", "nll: 1", 1): "was changed after the tuning",
        text.replace("nll: ", "nll: .nan #", 1): "is not what python -m harness.tune has written",
        text.replace("network: {}", "network: {a: 2020-01-01}", 1): "is not what python -m harness.tune has written",
        text.replace("network: {}", "network: &a {a: *a}", 1): "is not what python -m harness.tune has written",
        text.replace("network: {}", "network: {1: a, b: c}", 1): "is not what python -m harness.tune has written",
        "trials: 3": "is not what python -m harness.tune has written",
        "[": "is not what python -m harness.tune has written",
    }.items():
        file.write_text(changed)
        assert run(["method=kd", f"tuned={file}", f"runs={tmp_path}/runs"]) == 2 and said in capsys.readouterr().err
    assert run(["method=kd", "tuned=nowhere.yaml", f"runs={tmp_path}/runs"]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{trials: 2}", "grids"),
        ("{trials: 9, grids: {kd: {alpha: [1.0, 0.5]}}}", "2 points, fewer than the 9 trials"),
        ("{trials: 1, grids: {kd: {steps: [1]}}}", "method=kd knows no option steps"),
        ("{trials: 1, grids: {ensemble_kb: {}}}", "did you mean ensemble_kd"),
        ("{trials: 1, grids: {kd: {alpha: [3.0]}}}", "alpha"),
        ("{trials: 1, grids: {kd: {temperature: [a]}}}", "method=kd cannot have"),
        ("{trials: 2, grids: {kd: {temperature: [1, 1.0]}}}", "twice"),
        ("{trials: 1, grids: {all: {}}}", "all is a group of methods"),
        ("{trials: 1, grids: {}}", "grids has for each method"),
        ("null", "nothing to tune"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path, capsys, block, said):
    assert tune.main([f"tune={block}", "seed=100", f"runs={tmp_path}"]) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("train.lr=0.01,0.1", "sweeps over seed and teachers.set alone"),
        ("method=kd", "those of tune.grids"),
        ("method.reestimate_bn=true", "disagree about the trial supervised: reestimate_bn=True"),
    ],
)
def test_trials_differ_in_their_options_alone(tmp_path, capsys, option, said):
    """The mean over two recipes is of neither."""
    block = "tune={trials: 1, grids: {supervised: {}}}"
    assert tune.main([block, "seed=100", option, f"runs={tmp_path}"]) == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_tuning_leaves_what_was_chosen(tuned, capsys):
    before = (tuned / "tuned.yaml").read_bytes()
    block = "tune={trials: 1, grids: {supervised: {}}}"
    assert tune.main([block, "seed=100", *SMALL, f"runs={tuned}"]) == 2
    assert "has what another tuning chose" in capsys.readouterr().err
    assert (tuned / "tuned.yaml").read_bytes() == before


def test_a_trial_that_diverges_is_none(tmp_path, capsys):
    block = "tune={trials: 2, grids: {perturbation: {temperature: [1.0e+30, 4.0]}}}"
    assert tune.main([block, "seed=100", *SMALL, f"runs={tmp_path}"]) in (0, 1)
    found = yaml.safe_load((tmp_path / "tuned.yaml").read_text())["methods"]["perturbation"]
    assert found["options"] == {"temperature": 4.0} and "1 of them diverged" in capsys.readouterr().out


def test_nothing_is_chosen_before_every_trial_has_an_outcome(tmp_path, capsys):
    """A trial that could not be run is no worse than the others."""
    block = "tune={trials: 1, grids: {supervised: {}, deep_ensemble: {}}}"
    arguments = [block, "seed=100", *SMALL, "teachers.size=1", "teachers.model=preresnet8", f"runs={tmp_path}"]
    assert tune.main(arguments) == 1 and not (tmp_path / "tuned.yaml").exists()
    assert "1 of 2 runs have no outcome" in capsys.readouterr().out


def test_trials_of_two_codes_are_not_compared(tuned, tmp_path, capsys):
    runs = tmp_path / "trials"
    shutil.copytree(tuned, runs)
    (runs / "tuned.yaml").unlink()
    place = next(runs.glob("digits-*-supervised-*"))
    record = read_record(place)
    write_record(place, {**record, "provenance": {**record["provenance"], "code": "another"}})
    assert tune.main([TUNE, "seed=100,101", *SMALL, f"runs={runs}"]) == 2 and not (runs / "tuned.yaml").exists()
    assert "different code: " in capsys.readouterr().err


def test_trials_of_a_teacher_that_was_trained_again_are_not_compared(tmp_path):
    configs = [configure(tmp_path, seed=seed) for seed in (100, 101)]
    for config, weights in zip(configs, "ab", strict=True):
        origin = {"teachers": ["t"], "teacher_weights": {"t": weights}, "data": "x", "code": "y", "device": "cpu"}
        plant(run_directory(config), config, provenance=origin)
    with pytest.raises(ConfigError, match=r"different weights of t: a \(1 runs\), b \(1 runs\)"):
        choose(configs, {"kd": [{}]})


def test_what_is_written_can_be_read(tmp_path):
    """Also where two parts of it are one object, which YAML would write as an alias."""
    shared = {"a": [1, 2]}
    settings = {"data": {"name": "digits", **shared}, "model": "wrn10_1", "network": shared, "again": shared}
    write_tuned(tmp_path / "tuned.yaml", [1], settings, {})
    assert read_tuned(tmp_path / "tuned.yaml")["settings"] == settings


def test_a_damaged_file_is_one_line_or_of_use(tmp_path):
    """Bytes of all kinds; and values of other types under a digest that fits, as a program with an error writes them."""
    file = tmp_path / "tuned.yaml"
    choice = Choice(options={"temperature": 4.0, "alpha": 0.5}, trials=3, nll=0.3)
    write_tuned(file, [0, 1], {"data": {"name": "digits"}, "model": "wrn10_1"}, {"kd": choice})
    content, right = file.read_bytes(), read_tuned(file)
    damages = [damage.flips(content), damage.cuts(content), damage.texts(), damage.places()]
    sealed = damage.values(right, lambda value: {**value, "digest": digest_of(value)})
    for one in chain(*damages, sealed):
        one.inflict(file)
        try:
            with damage.in_time():
                assert apply([f"tuned={file}", "method=kd"])
                assert " = " in one.name or " gone" in one.name or read_tuned(file) == right
        except ConfigError as error:
            assert str(file) in str(error) and str(error).isprintable(), one.name
        damage.remove(file)
