"""Bad input: one clear line, a non-zero exit, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.experimental.callback import Callback

import methods
from harness.__main__ import main

EVERY = len(methods.VARIANTS) + len(methods.BASELINES)
REFUSED = {
    "method=kdd": "unknown method 'kdd'; did you mean kd?",
    "-m method=all,foo": "unknown method 'foo'",
    "method=all": "method=all is a group of variants: sweep over it with -m (in Python: harness.sweep), or choose one of kd, ensemble_kd",
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
    "method=ae_kd teachers.size=9": "method=ae_kd learns from 8 teachers at most: teachers.size=9",
    "method=kd teachers.size=0": "teachers.size must be at least 1",
    "device=cuda:99": "usable GPUs",
    "device=abacus": "unknown device 'abacus'",
    "train.epochs=0": "train.epochs must be at least 1",
    "train.lr=0": "train.lr must be positive",
    "runs=/proc/nowhere": "cannot write to /proc/nowhere",
    "optoin=1": "Could not override 'optoin'",
    "train=shrt": "unknown train 'shrt'; did you mean short?",
    "method.name=all": "method=all is a group of variants",
    "+method.rate=1": "method=combined knows no option rate",
    "~seed": "~seed deletes an option that every run has",
    "data=3": "Config group override must be a string or a list. Got int",
    "--seed=3": "unrecognized arguments: --seed=3 (options have no dashes",
    "seed=0,1": "seed=0,1 names several values, and this is one run: add -m to run each, or give seed as a list, 'seed=[0,1]'",
    "runs=a,b": """or as one text, 'runs="a,b"'""",
    "seed=range(2)": "seed=range(2) names several values, and this is one run: add -m to run each",
    "-m seed=0, 1": "'seed=0,' is no OPTION=VALUE: a list is written without blanks",
    "-m study=a(b)": """Unknown function 'a'): a value with such signs is written in quotes, 'study="a(b)"'""",
    "-m study=it's": """written in quotes, 'study="it'"'"'s"'""",
    "-m teachers.set=": "an unquoted ${...} is the shell's, so quote it: 'teachers.set=${...}'",
    "seed=${sede}": "seed: Interpolation key 'sede' not found",
    "-m seed=interval(0,1)": "seed=interval(0,1): only lists, ranges and patterns can be swept over",
    "-m hydra.job.chdir=true": "hydra.job.chdir has no use in a sweep: runs do not change folder",
    "-m hydra.output_subdir=.hydra": "hydra.output_subdir has no use in a sweep: every run's record.json",
    "-m hydra.sweep.dir=x": "hydra.sweep has no use in a sweep: runs name their own folders below runs=FOLDER",
    "-m hydra/job_logging=default": "hydra/job_logging has no use in a sweep",
    "-m +hydra.callbacks.a._target_=tests.test_command_line.Notes": "hydra.callbacks: Notes.on_job_start is not called",
    "-m teachers.train.lr=abc": "teachers.train.lr=abc: Value 'abc' of type 'str' could not be converted to Float",
    "-m teachers.train.batch_size=16.0": "Value '16.0' of type 'float' could not be converted to Integer",
    "teachers.train.lr=-1": "teachers.train.lr must be positive",
    "-m seed=range(3),7": "seed=range(3),7: a range or pattern is no value of a list",
    "-m data=glob(c*),digits": "data=glob(c*),digits: a range or pattern is no value of a list",
    "-m hydra/launcher=gpu hydra.launcher.partition=a,b": """written in quotes, 'hydra.launcher.partition="a,b"'""",
    "-m hydra/launcher=gpu sweep.workers=3": "hydra.launcher.array_parallelism=3 says",
    "-m hydra/launcher=gpu sweep.detach=true fail_fast=true": "fail_fast=true needs somebody who watches",
    "-m sweep.detach=true": "sweep.detach=true needs SLURM",
    "-m sweep.poll_s=0": "sweep.poll_s must be positive, not 0.0",
}


class Notes(Callback):
    """What somebody wants done around each of Hydra's jobs, which runs of a sweep are not."""

    def on_job_start(self, config, *, task_function, **more):
        raise NotImplementedError


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
    assert "  train:\n    epochs: 7\n    batch_size: ???\n" in capsys.readouterr().out
    assert main([*sweep, "teachers.train.rate=7"]) == 2
    assert "Could not override 'teachers.train.rate'" in capsys.readouterr().err


def test_teachers_of_one_recipe_are_one_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "method=kd", "teachers.train.lr=1,1.0,1e0", "harness.plan=true"]) == 0
    said = capsys.readouterr().out
    assert "1 runs: 0 done before, 1 to run, 4 teachers to train first" in said


@pytest.mark.parametrize("arguments", ["-m method=all seed=0,1 --cfg job", "method=all --cfg job", "--cfg job"])
def test_the_configuration_can_be_shown(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 0
    assert "preresnet_tiny" in capsys.readouterr().out


def test_help_needs_no_torch():
    code = "import sys; from harness.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "combined" in done.stdout


@pytest.mark.parametrize("way", ["method=all,baselines -m", "method=all,baselines hydra.mode=MULTIRUN"])
def test_a_sweep_is_asked_for_anywhere_on_the_line(way, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*way.split(), "seed=range(2)", "harness.plan=true"]) == 0
    assert f"{2 * EVERY} runs: 0 done before" in capsys.readouterr().out


def test_a_plan_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "method=all,baselines", "seed=range(2)", "teachers.set=0,1", "harness.plan=true"]) == 0
    said = capsys.readouterr().out
    assert f"{4 * EVERY} runs: 0 done before, {4 * EVERY} to run, 8 teachers to train first" in said
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
