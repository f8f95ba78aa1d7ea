"""Bad input: one clear line, a non-zero exit, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.__main__ import main

REFUSED = {
    "method=kdd": "unknown method 'kdd'; did you mean kd?",
    "-m method=all,foo": "unknown method 'foo'",
    "method=all": "method=all is a group of variants: sweep over it with -m, or choose one of kd, ensemble_kd",
    "data=digitz": "unknown data 'digitz'; did you mean digits?",
    "model=wrn28": "unknown model 'wrn28'; did you mean wrn28_4?",
    "model=wrn27_4": "wrn27_4: the depth of a WRN is 6n + 4",
    "seed=a": "'a' of type 'str' could not be converted to Integer",
    "-m seed=0,b": "'b' of type 'str' could not be converted to Integer",
    "method.temperature=0": "method.temperature must be positive",
    "method.temperature=-1": "method.temperature must be positive",
    "method.alpha=1.5": "method.alpha must lie in [0, 1]",
    "method.pair=[1,1]": "method.pair is two different members",
    "method.step=-1": "method.step must not be negative",
    "method.pair=[0,4]": "method=combined needs at least 5 teachers: teachers.size=4",
    "harness.plan=true": "harness.plan=true shows what a sweep would run: add -m",
    "teachers.size=1": "method=combined needs at least 2 teachers",
    "method=kd teachers.size=0": "teachers.size must be at least 1",
    "device=cuda:99": "usable GPUs",
    "device=abacus": "unknown device 'abacus'",
    "train.epochs=0": "train.epochs must be at least 1",
    "train.lr=0": "train.lr must be positive",
    "runs=/proc/nowhere": "cannot write to /proc/nowhere",
    "optoin=1": "Could not override 'optoin'",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_bad_input_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = main(arguments.split())
    said = capsys.readouterr()
    assert status == 2
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert REFUSED[arguments] in said.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_teachers_have_a_recipe_of_their_own(sweep, capsys):
    assert main([*sweep, "method=kd", "teachers.train.epochs=7", "--cfg", "job"]) == 0
    assert "  train:\n    epochs: 7\n" in capsys.readouterr().out
    assert main([*sweep, "teachers.train.rate=7"]) == 2
    assert "teachers.train knows no option rate" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["-m method=all seed=0,1 --cfg job", "method=all --cfg job", "--cfg job"])
def test_the_configuration_can_be_shown(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 0
    assert "preresnet_tiny" in capsys.readouterr().out


def test_help_needs_no_torch():
    code = "import sys; from harness.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "combined" in done.stdout


def test_a_plan_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "method=all,baselines", "seed=range(2)", "teachers.set=0,1", "harness.plan=true"]) == 0
    said = capsys.readouterr().out
    assert "24 runs: 0 done before, 24 to run, 8 teachers to train first" in said
    assert not list(tmp_path.rglob("*.json"))


def test_a_variant_of_another_package_is_part_of_all(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import dataclass\n"
        "from methods.ensemble_kd import EnsembleKD\n"
        "@dataclass\n"
        "class Sharper(EnsembleKD):\n"
        "    temperature: float = 2.0\n"
        "    extra: int = 7\n"
    )
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[harness.methods]\nsharper = theirs:Sharper\n")
    command = [
        sys.executable,
        "-m",
        "harness",
        "-m",
        "method=all",
        "harness.plan=true",
        f"runs={tmp_path / 'runs'}",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "6 runs" in done.stdout and "-sharper-s0-" in done.stdout
