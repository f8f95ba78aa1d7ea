"""Figures show the numbers of the runs."""

import numpy as np
import pytest

from analysis.records.errors import AnalysisError
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.figures import comparisons
from analysis.report.figures import gallery as figures
from analysis.verdicts.contrasts import compute


@pytest.fixture(scope="module")
def drawn(runs):
    return {f.name: f for f in figures.everything(runs, Study())}


def test_every_figure_is_drawn(drawn):
    names = {"forest", "interaction-factorial", "cost", "curves", "reliability", "paths", "diversity"}
    assert names <= set(drawn)
    assert sum(name.startswith("slopes-") for name in drawn) == 7
    assert all(f.alt and f.title for f in drawn.values())


def test_slopes_show_the_pairs(runs, drawn):
    axes = drawn["slopes-combined-ensemble_kd"].figure.axes[0]
    lines = np.array([line.get_ydata() for line in axes.lines[:-1]])
    table = runs.pivot(index="seed", columns="arm", values="nll")
    np.testing.assert_allclose(lines, table[["ensemble_kd", "combined"]])
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), lines.mean(0))


def test_forest_shows_intervals(runs):
    found = [c for c in compute(runs, Study(), ["nll"])]
    axes = figures.forest(found).axes[0]
    bars = axes.collections
    assert len(axes.get_yticklabels()) == len(found) == len(bars)
    ends = bars[0].get_segments()[0][:, 0]
    np.testing.assert_allclose(sorted(ends), [found[0].low, found[0].high])


def test_pareto_front_is_what_no_other_beats():
    points = [(1, 0.5), (2, 0.4), (3, 0.45), (4, 0.3), (0.5, 0.9)]
    assert comparisons._front(points, -1) == [(0.5, 0.9), (1, 0.5), (2, 0.4), (4, 0.3)]
    assert comparisons._front(points, +1) == [(0.5, 0.9)]


def test_arms_differ_in_more_than_colour(drawn):
    handles = drawn["curves"].figure.axes[0].lines
    assert len({(line.get_marker(), line.get_linestyle()) for line in handles}) == 6
    assert len({line.get_marker() for line in handles}) == 6


def test_figures_without_data_say_so(small_folder):
    runs = load(small_folder)  # no diagnostics, histories or predictions
    for draw in (figures.paths, figures.diversity):
        with pytest.raises(AnalysisError, match=r"evaluate\.diagnostics=true"):
            draw(runs)
    with pytest.raises(AnalysisError, match="history"):
        figures.curves(runs, Study())
    with pytest.raises(AnalysisError, match="predictions"):
        figures.reliability(runs, Study())
    with pytest.raises(AnalysisError, match="pair"):
        figures.slopes(runs, "kd", "nobody")


def test_saved_in_three_forms_and_the_same_each_time(drawn, tmp_path):
    paths = figures.save(drawn["cost"].figure, tmp_path / "a" / "cost")
    assert [p.suffix for p in paths] == [".pdf", ".svg", ".png"]
    heads = [p.read_bytes()[:8] for p in paths]
    assert heads[0].startswith(b"%PDF")
    assert heads[1].startswith(b"<?xml")
    assert heads[2] == b"\x89PNG\r\n\x1a\n"
    again = figures.save(drawn["cost"].figure, tmp_path / "b" / "cost")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
