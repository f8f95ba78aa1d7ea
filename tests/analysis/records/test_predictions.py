"""Stored predictions say what the record says."""

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.records import predictions
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.figures.runs import curves, paths, reliability
from harness.store.predictions import PREDICTIONS
from harness.store.record import read_record
from tests.analysis.synthetic import change, make_run


def test_likelihood_per_image_is_the_recorded_one(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    stored = predictions.read(directory)
    assert stored.nll.mean() == pytest.approx(load(tmp_path)["nll"].iloc[0], rel=1e-3)


def test_predictions_of_another_run_or_with_one_other_bit_are_refused(tmp_path, capsys):
    a, b = (make_run(tmp_path, method, 0) for method in ("kd", "combined"))
    content = (a / PREDICTIONS).read_bytes()
    with pytest.raises(AnalysisError, match="is of run"):
        predictions.read(a, run=b.name[-12:])
    flipped = bytearray((b / PREDICTIONS).read_bytes())
    flipped[3000] ^= 1  # in what npz keeps as it is
    for other in (content, bytes(flipped)):
        (b / PREDICTIONS).write_bytes(other)
        with pytest.raises(AnalysisError, match=r"predictions\.npz"):
            predictions.read(b)
        assert main(["compare", "combined", "kd", str(tmp_path)]) == 0
        assert "not compared image by image" in capsys.readouterr().err
        with pytest.warns(AnalysisWarning, match="left out of the reliability diagram: .*combined"):
            figure = reliability(load(tmp_path), Study())
        assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["kd"]


def test_a_digest_is_computed_once_a_file_in_a_process(tmp_path, monkeypatch):
    directory = make_run(tmp_path, "kd", 0)
    checked = []
    monkeypatch.setattr(predictions, "check_files", lambda *words: checked.append(words))
    for _ in range(3):
        predictions.read(directory)
    assert len(checked) == 1


def test_one_damaged_history_or_barrier_costs_its_run_not_the_figure(tmp_path):
    a, b = (make_run(tmp_path, "combined", seed, diagnostics=True) for seed in range(2))
    make_run(tmp_path, "kd", 0)
    (a / "history.jsonl").write_text('{"epoch": 1, "loss": "x"}\n')
    with pytest.warns(AnalysisWarning, match="left out of the learning curves: .*combined"):
        curves(load(tmp_path), Study())
    barriers = read_record(b)["diagnostics"]["barriers"]
    change(b, "diagnostics.barriers", {name: {**pair, "loss": pair["loss"][:-1]} for name, pair in barriers.items()})
    with pytest.warns(AnalysisWarning, match="left out of the paths"):
        paths(load(tmp_path))


def test_logits_that_are_no_numbers_are_not_right():
    """The largest of NaN is the first class, which would be right for a tenth of the images."""
    found = predictions.Predictions(np.array([[np.nan, np.nan], [2.0, 1.0]], np.float32), np.array([0, 0]))
    assert found.correct.tolist() == [False, True]
