"""The named studies: each can be planned, each of its arms trains, and the arms that it declares are those that it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis.records.arms import labels
from harness.app import run
from harness.store.record import read_record
from tests.heads import ROOT

PRESETS = sorted(file.stem for file in (ROOT / "sweeps").glob("*.yaml") if "\nstudy:" in file.read_text())
SMOKE = ("data=digits", "data.validation=null", "data.train=null", "data.padding=1", "data.image_size=64")
UNTUNED = "tuned=null"
SMALLEST = ("model=preresnet_tiny", "train=smoke", "train.steps_per_epoch=2", "seed=0", "teachers.set=0")


@pytest.fixture(scope="module")
def smoked(tmp_path_factory) -> Path:
    """Every arm of every preset, once, in the smallest form: most are arms of several."""
    runs = tmp_path_factory.mktemp("presets")
    for preset in PRESETS:
        assert (
            run(["-m", f"+sweep={preset}", *SMOKE, *SMALLEST, UNTUNED, f"runs={runs}", "evaluate.diagnostics=false"])
            == 0
        )
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_arms_that_a_study_declares_are_those_that_it_runs(smoked, preset):
    study = analysis.read_study(ROOT / "sweeps" / f"{preset}.yaml")
    records = [read_record(place) for place in smoked.glob("digits-*-s0-*")]
    assert {record["status"] for record in records} <= {"done", "diverged"}
    runs = pd.DataFrame(
        {
            "config": [record["config"] for record in records],
            "method": [record["config"]["method"]["name"] for record in records],
            "method_defaults": [record["provenance"]["method_defaults"] for record in records],
        }
    )
    there = set(labels(runs, study))
    families = study.complete(sorted(there)).families
    assert families and all(not family.absent(sorted(there)) for family in families)
    assert study.baseline in there


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_says_what_it_costs(preset, tmp_path, capsys):
    """By what its steps compute, where the size of its data set is known."""
    text = (ROOT / "sweeps" / f"{preset}.yaml").read_text()
    command = ["-m", f"+sweep={preset}", UNTUNED, "data.root=/nowhere", f"runs={tmp_path}", "harness.plan=true"]
    assert run(command) == 0
    said = capsys.readouterr().out
    hours = re.search(r"about ([\d,.]+) GPU-hours \(no record of such runs yet", said)
    if headed := re.search(r"about (\d+) GPU-hours", " ".join(text.replace("#", "").split())):
        assert round(float(hours[1].replace(",", ""))) == int(headed[1])
        students, teachers = re.search(
            r"(\d+) students and (\d+) teachers", " ".join(text.replace("#", "").split())
        ).groups()
        assert f"{students} to run, {teachers} teachers to train first" in said
    else:
        assert "no estimate of the time" in said  # digits, and a folder: nobody knows its size before it is read


def test_a_study_of_what_was_tuned_needs_to_be_told_what_was(tmp_path, capsys):
    assert run(["-m", "+sweep=tuned_digits", f"runs={tmp_path}", "harness.plan=true"]) == 2
    assert "python -m harness.tune writes it" in capsys.readouterr().err
