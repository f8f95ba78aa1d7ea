"""Numbers that decide a verdict: wherever they are given, those that decide nothing are refused."""

import json

import pytest

from analysis.__main__ import main
from analysis.records import limits
from analysis.records.baseline import read_baseline
from analysis.records.declared import parse
from analysis.records.errors import AnalysisError
from analysis.records.loading import load
from analysis.verdicts import gate
from tests.analysis.synthetic import make_study

NONE = [float("nan"), float("inf"), -float("inf"), -0.01, 0, 10**400, True, "0.01", None, [0.01]]


@pytest.mark.parametrize("value", [*NONE, 0.5, 2, 0.9999])
def test_levels_that_are_none(value):
    with pytest.raises(AnalysisError, match=r"alpha must lie between 0\.00001 and 0\.5"):
        limits.alpha(value)
    if value is not None:
        with pytest.raises(AnalysisError, match=r"alpha must lie between 0\.00001 and 0\.5"):
            parse({"alpha": value}, "test")
    assert limits.alpha(0.49) == 0.49


@pytest.mark.parametrize("value", NONE)
def test_margins_and_tolerances_that_are_none(value):
    with pytest.raises(AnalysisError, match="margin of nll must be a positive number"):
        limits.margin("nll", value)
    with pytest.raises(AnalysisError, match="margin of nll must be a positive number"):
        parse({"margins": {"nll": value}}, "test")
    if value != 0:  # which tolerates nothing
        for name in limits.TOLERANCES:
            with pytest.raises(AnalysisError, match=f"tolerance of {name} must lie between"):
                limits.tolerance(name, value)


def test_limits_beyond_which_nothing_fails():
    for name, value in (("speed", 1.0), ("memory", 11.0)):
        with pytest.raises(AnalysisError):
            limits.tolerance(name, value)
    with pytest.raises(AnalysisError, match=r"is a share, such as 0\.01"):
        limits.margin("shift_acc", 1)
    assert limits.margin("nll", 2) == 2


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    make_study(folder / "runs", seeds=range(6), methods=("kd",), clean=False, files=False)
    assert main(["freeze", str(folder / "runs"), "-o", str(folder / "b.json")]) == 0
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--alpha", "2"], ["--alpha", "0.5"], ["--alpha", "nan"], ["--alpha", "-0.1"], ["--margin", "nll=nan"],
        ["--margin", "nll=inf"], ["--margin", "nll=-1"], ["--margin", "acc=1"], ["--margin", "nll=x"], ["--speed", "1"],
        ["--speed", "nan"], ["--speed", "-1"], ["--memory", "inf"], ["--memory", "-1"],
    ],
)  # fmt: skip
def test_on_the_command_line(frozen, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["regress", "--baseline", str(frozen / "b.json"), str(frozen / "runs"), *words])
    assert words[0].removeprefix("--") in capsys.readouterr().err.splitlines()[-1]


def test_from_python_and_in_the_file(frozen, tmp_path):
    baseline, runs = read_baseline(frozen / "b.json"), load(frozen / "runs")
    for wrong in ({"alpha": 2}, {"margins": {"nll": float("nan")}}, {"cost": {"speed": 2}}):
        with pytest.raises(AnalysisError):
            gate.regress(baseline, runs, **wrong)
    content = {key: value for key, value in baseline.items() if key != "digest"}
    path, run = tmp_path / "b.json", content["runs"][0]
    for change, message in (
        ({"alpha": 2}, "alpha must lie"), ({"alpha": float("nan")}, "alpha must lie"), ({"alpha": "x"}, "alpha"),
        ({"margins": {"nll": -1}}, "margin of nll"), ({"margins": {"speed": 1}}, "no metric named"),
        ({"test": "none"}, "test"), ({"format": 2}, "of format 2.*upgrade"), ({"runs": []}, "not a baseline"),
        ({"runs": [run, run]}, "has 2 runs of digits, preresnet_tiny, kd, 0, 0"), ({"runs": [run, 7]}, "runs"),
        ({"runs": [run | {"nll": float("nan")}]}, "nll"), ({"runs": [run | {"acc": 7}]}, "acc"),
        ({"runs": [run | {"nll": "x"}]}, "nll"), ({"runs": [run | {"seed": None}]}, "seed"),
        ({"runs": [run | {"shift_nll": [1]}]}, "shift_nll"), ({"runs": [run | {"recipe": 7}]}, "recipe"),
    ):  # fmt: skip
        path.write_text(json.dumps(content | change))
        with pytest.raises(AnalysisError, match=message) as error:
            read_baseline(path)
        assert "\n" not in str(error.value)
    path.write_text(json.dumps(baseline | {"alpha": 0.4}))
    with pytest.raises(AnalysisError, match="changed after it was written"):
        read_baseline(path)
    path.write_text(json.dumps(content | {"alpha": 0.4}))  # on purpose, or by an older version
    assert read_baseline(path)["alpha"] == 0.4


def test_a_speed_of_nothing_is_no_speed(frozen):
    baseline = read_baseline(frozen / "b.json")
    for run in baseline["runs"]:
        run["images_per_s"] = 0
    checks = gate.regress(baseline, load(frozen / "runs"))
    assert [c.metric for c in checks if c.metric == "speed"] == []
