"""Tables of runs as files, and back."""

import pytest

from analysis.records.errors import AnalysisError
from analysis.records.exports import export
from analysis.records.loading import load
from tests.analysis.synthetic import make_run


@pytest.mark.filterwarnings("error")
def test_export_and_back(tmp_path, study_folder):
    runs = load(study_folder)
    again = load(export(runs, tmp_path / "runs.csv"))
    assert list(again["run"]) == list(runs["run"])
    assert list(again["arm"]) == list(runs["arm"])
    assert again["config"].tolist() == runs["config"].tolist()
    for name in ("nll", "acc", "device_s", "teachers_test_ambiguity", "seed", "parameters"):
        assert again[name].tolist() == runs[name].tolist()


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    make_run(tmp_path, "kd", 0)
    runs = load(tmp_path).assign(host="007", run="12345678e012", data_fingerprint="1e5")
    row = load(export(runs, tmp_path / "runs.csv")).iloc[0]
    assert (row["host"], row["run"], row["data_fingerprint"], row["torch"]) == ("007", "12345678e012", "1e5", "2.14")


def test_parquet_and_back_or_a_clear_error(tmp_path, small_folder):
    runs = load(small_folder)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(AnalysisError, match="need pyarrow"):
            export(runs, tmp_path / "runs.parquet")
    else:
        assert list(load(export(runs, tmp_path / "runs.parquet"))["nll"]) == list(runs["nll"])


@pytest.mark.parametrize("content, message", [("a,b\n1,2\n", "not an exported table"), (None, "no such file")])
def test_bad_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "x.csv"
    if content:
        path.write_text(content)
    with pytest.raises(AnalysisError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
