"""The command line, as a person meets it."""

import subprocess
import sys

import pytest

from analysis.__main__ import COMMANDS, main
from tests.analysis.synthetic import make_run


def test_a_folder_alone_prints_tables_and_verdicts(study_folder, capsys):
    assert main([str(study_folder)]) == 0
    out = capsys.readouterr().out
    assert "weight_averaging" in out
    assert "Verdicts" in out
    assert "combined is better than ensemble_kd" in out
    assert "about teacher set 0" in out


@pytest.mark.parametrize(
    "form, start",
    [("markdown", "###"), ("latex", r"\begin{table}"), ("csv", "table,arm"), ("html", "<table")],
)
def test_forms_to_a_file(study_folder, tmp_path, form, start):
    path = tmp_path / "out"
    assert main(["table", str(study_folder), "--format", form, "--metrics", "acc,nll", "-o", str(path)]) == 0
    assert start in path.read_text()


def test_compare_goes_down_to_the_images(study_folder, capsys):
    assert main(["compare", "combined", "kd", str(study_folder), "--images", "3"]) == 0
    out = capsys.readouterr().out
    assert "McNemar" in out
    assert "test image" in out
    assert "combined is better than kd" in out


def test_compare_without_predictions_still_compares(small_folder, capsys):
    assert main(["compare", "combined", "kd", str(small_folder)]) == 0
    captured = capsys.readouterr()
    assert "not compared image by image" in captured.err
    assert "n = 3 cannot reach" in captured.out


def test_contrasts_and_export_and_figures(small_folder, tmp_path, capsys):
    assert main(["contrasts", str(small_folder), "--metrics", "acc"]) == 0
    assert "Family: variants" in capsys.readouterr().out
    assert main(["export", str(small_folder), "-o", str(tmp_path / "r.csv")]) == 0
    assert main([str(tmp_path / "r.csv"), "--metrics", "nll"]) == 0
    assert "perturbation" in capsys.readouterr().out


def test_a_study_file(small_folder, tmp_path, capsys):
    path = tmp_path / "s.yaml"
    path.write_text("study: {question: q, primary: acc, families: {f: {against: kd}}}")
    assert main([str(small_folder), "--study", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Nothing can be established with 3 seeds" in out
    assert "Families are declared in s.yaml; the records do not say so: every verdict is exploratory." in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["blocks", "FOLDER"], "needs 6 of them"),
        (["compare", "kd", "nobody", "FOLDER"], "no runs of 'nobody'"),
        (["FOLDER", "--study", "none.yaml"], "no such study file"),
        (["FOLDER", "--allow-mixed", "everything"], "cannot allow everything"),
        (["export", "FOLDER", "-o", "x.docx"], "use .csv or .parquet"),
        (["contrasts", "FOLDER", "--metrics", "speed"], "no metric named 'speed'"),
        (["regress", "FOLDER", "--baseline", "none.json"], "no such baseline file"),
    ],
)
def test_bad_input_is_one_line_and_not_zero(arguments, message, small_folder, capsys):
    assert main([a.replace("FOLDER", str(small_folder)) for a in arguments]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(err) == 1
    assert message in err[0]


EVERY = {
    "table": [], "contrasts": [], "blocks": [], "report": ["-o", "OUT"], "figures": ["-o", "OUT"],
    "export": ["-o", "OUT.csv"], "freeze": ["-o", "OUT"], "regress": ["--baseline", "BASELINE"],
    "compare": ["kd", "combined"],
}  # fmt: skip


def refused(command, folder, tmp_path, capsys, *more):
    """The one line of error that a command leaves, with exit status 2 and no file written."""
    places = {"OUT": str(tmp_path / "out"), "OUT.csv": str(tmp_path / "out.csv"), "BASELINE": str(tmp_path / "b.json")}
    words = [places.get(word, word) for word in EVERY[command]]
    assert main([command, *words, str(folder), *more]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert not list(tmp_path.glob("out*"))
    assert len(errors) == 1
    return errors[0]


@pytest.fixture
def frozen(small_folder, tmp_path, capsys):
    assert main(["freeze", str(small_folder), "-o", str(tmp_path / "b.json")]) == 0
    capsys.readouterr()
    return tmp_path


def test_every_command_is_tried():
    assert {*EVERY, "simulate"} == set(COMMANDS)


@pytest.mark.parametrize("command", EVERY)
def test_an_empty_folder(command, frozen, capsys):
    (frozen / "empty").mkdir()
    assert "no run records under" in refused(command, frozen / "empty", frozen, capsys)


@pytest.mark.parametrize("command", [command for command in EVERY if command != "export"])  # which keeps what failed
def test_no_finished_run(command, frozen, capsys):
    for method in ("kd", "combined"):
        make_run(frozen / "failed", method, 0, status="failed")
    line = refused(command, frozen / "failed", frozen, capsys)
    assert "none of 2 runs has finished well" in line
    assert "failed (RuntimeError: loss is not finite)" in line


@pytest.mark.parametrize("name, message", [("speed", "no metric named 'speed'"), ("shift_nll", "no run has measured")])
@pytest.mark.parametrize("command", ["table", "contrasts", "blocks", "compare", "freeze", "regress"])
def test_metrics_that_nobody_knows_or_has_measured(command, name, message, frozen, small_folder, capsys):
    option = {"blocks": ["--metric", name], "freeze": ["--margin", f"{name}=1"], "regress": ["--margin", f"{name}=1"]}
    if command in ("freeze", "regress") and name == "speed":
        with pytest.raises(SystemExit, match="2"):
            refused(command, small_folder, frozen, capsys, *option[command])
        assert message in capsys.readouterr().err
    else:
        assert message in refused(command, small_folder, frozen, capsys, *option.get(command, ["--metrics", name]))


@pytest.mark.parametrize("command", ["table", "contrasts", "blocks", "compare", "report", "figures"])
def test_a_primary_metric_that_was_not_measured(command, frozen, small_folder, capsys):
    (frozen / "s.yaml").write_text("study: {primary: shift_nll}")
    more = ["--study", str(frozen / "s.yaml")]
    assert "no run has measured shift_nll" in refused(command, small_folder, frozen, capsys, *more)


def test_refused_mixtures_list_the_runs(tmp_path, capsys):
    make_run(tmp_path, "kd", 0, files=False)
    make_run(tmp_path, "kd", 1, train={"epochs": 3}, files=False)
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "train.epochs=3 (1 runs:" in err
    assert main([str(tmp_path), "--where", "train.epochs=3"]) == 0
    assert main([str(tmp_path), "--allow-mixed", "recipe"]) == 0
    assert "kd *" in capsys.readouterr().out


def test_help_names_every_command():
    text = subprocess.run(
        [sys.executable, "-m", "analysis", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in text for name in COMMANDS)
