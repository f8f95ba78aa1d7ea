"""Comparisons image by image."""

import numpy as np
import pytest

from analysis.records import predictions
from analysis.records.errors import AnalysisError
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.summary import summarise
from analysis.verdicts.images import compare_images
from harness.store.files import digest
from tests.analysis.synthetic import change, make_run


def test_predictions_of_other_images_are_refused(tmp_path):
    make_run(tmp_path, "kd", 0)
    directory = make_run(tmp_path, "combined", 0)
    stored = predictions.read(directory)
    few = {"logits": stored.logits[:50], "labels": stored.labels[:50]}
    np.savez(
        directory / "predictions.npz", **{f"{s}_{what}": few[what] for s in ("validation", "test") for what in few}
    )
    with pytest.raises(AnalysisError, match="its digest does not fit the record"):
        compare_images(load(tmp_path), "combined", "kd")
    change(directory, "files", {"predictions.npz": digest(directory / "predictions.npz")})
    with pytest.raises(AnalysisError, match="different images"):
        compare_images(load(tmp_path), "combined", "kd")
    (directory / "predictions.npz").write_bytes(b"PK nonsense")
    with pytest.raises(AnalysisError, match="holds no predictions"):
        predictions.read(directory)
    with pytest.raises(AnalysisError, match="no finished pair"):
        compare_images(load(tmp_path), "combined", "nobody")


def test_a_seed_that_lost_a_run_is_not_crossed(tmp_path):
    """Two sets of teachers, three seeds, one run failed: six rows less one are not five independent ones."""
    for number in (0, 1):
        for seed in range(3):
            make_run(tmp_path, "kd", seed, teacher_set=number)
            lost = (number, seed) == (1, 2)
            make_run(tmp_path, "combined", seed, teacher_set=number, status="failed" if lost else "done")
    found = compare_images(load(tmp_path), "combined", "kd")
    assert len(found.keys) == 5
    assert found.crossed(found.nll_variant).shape == (2, 2, len(found.labels))
    assert np.array_equal(found.crossed(found.nll_variant)[1, 1], found.nll_variant[4])


def test_an_old_export_may_have_lost_where_a_run_lies(tmp_path):
    """Its numbers are in the tables; its images cannot be compared, by name."""
    for seed in range(3):
        make_run(tmp_path, "kd", seed)
        make_run(tmp_path, "combined", seed)
    runs = load(tmp_path)
    runs["directory"] = runs["directory"].astype("str").where(runs["seed"] > 0)  # as a table's column of texts
    assert summarise(runs, Study()).tables
    with pytest.raises(AnalysisError, match="the table does not tell where its predictions are"):
        compare_images(runs, "combined", "kd")
