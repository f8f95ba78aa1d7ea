"""The comparison across data sets x networks."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.records.errors import AnalysisError
from analysis.records.loading import load
from analysis.verdicts.blocks import across_blocks
from tests.analysis.synthetic import make_run


def test_data_sets_follow_scipy_and_six_are_needed(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(8):
        for j, method in enumerate(("kd", "ensemble_kd", "combined")):
            for seed in range(2):
                nll = 0.5 + 0.1 * i - 0.05 * j + 0.005 * generator.normal()
                make_run(
                    tmp_path,
                    method,
                    seed,
                    data=f"set{i}",
                    fingerprint=f"f{i}",
                    metrics={"nll": nll},
                    files=False,
                )
    runs = load(tmp_path)
    found = across_blocks(runs, "nll")
    assert list(found.ranks.index) == ["combined", "ensemble_kd", "kd"]
    expected = stats.friedmanchisquare(*(found.values[arm] for arm in found.values)).pvalue
    assert found.friedman_p == pytest.approx(expected)
    pair = found.pairwise.iloc[0]
    assert pair["p"] == pytest.approx(stats.wilcoxon(found.values["combined"], found.values["ensemble_kd"]).pvalue)
    assert set(found.pairwise["verdict"]) == {"better"}
    few = runs[runs["data"].isin([f"set{i}" for i in range(6)])]
    small = across_blocks(few, "nll")
    assert set(small.pairwise["verdict"]) == {"inconclusive"}
    assert "6 data sets cannot reach" in small.words
    with pytest.raises(AnalysisError, match="needs 6 of them"):
        across_blocks(runs[runs["data"] == "set0"], "nll")


def test_blocks_have_the_direction_of_their_ranks():
    """Fifteen small gains and one large loss: the mean says worse, the ranks that are tested better."""
    rows = [
        {"status": "done", "data": f"set{i}", "model": "m", "arm": arm, "teacher_set": 0, "seed": 0,
         "run": f"{arm}{i}", "nll": 1 + shift + (i / 1000 if arm == "kd" else 0)}
        for i in range(16)
        for arm, shift in (("ours", 5.0 if i == 15 else -0.1), ("kd", 0.0), ("other", 9.0))
    ]  # fmt: skip
    found = across_blocks(pd.DataFrame(rows), "nll")
    row = found.pairwise[(found.pairwise["variant"] == "ours") & (found.pairwise["reference"] == "kd")].iloc[0]
    assert found.values["ours"].mean() > found.values["kd"].mean()
    assert (row["wins"], row["verdict"]) == (15, "better")
