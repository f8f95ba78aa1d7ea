"""Baseline files that are none."""

import pytest

from analysis.records.baseline import read_baseline
from analysis.records.errors import AnalysisError


@pytest.mark.parametrize(
    "content, message",
    [("{", "not valid JSON"), ("{}", "not a baseline file"), (None, "no such baseline file")],
)
def test_bad_baselines(tmp_path, content, message):
    path = tmp_path / "b.json"
    if content:
        path.write_text(content)
    with pytest.raises(AnalysisError, match=message):
        read_baseline(path)
