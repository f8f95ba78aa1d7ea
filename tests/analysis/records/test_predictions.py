"""Stored predictions say what the record says."""

import pytest

from analysis.records import predictions
from analysis.records.loading import load
from tests.analysis.synthetic import make_run


def test_likelihood_per_image_is_the_recorded_one(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    stored = predictions.read(directory)
    assert stored.nll.mean() == pytest.approx(load(tmp_path)["nll"].iloc[0], rel=1e-3)
