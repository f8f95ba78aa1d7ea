"""Comparisons image by image."""

import numpy as np
import pytest

from analysis.records import predictions
from analysis.records.errors import AnalysisError
from analysis.records.loading import load
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
