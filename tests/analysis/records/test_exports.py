"""Tables of runs as files, and back."""

from importlib.util import find_spec

import pandas as pd
import pytest

from analysis.records.errors import AnalysisError
from analysis.records.exports import SEAL, export
from analysis.records.loading import load
from tests.analysis.synthetic import change, make_run


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


def forms():
    """Both forms of an export, where this machine can write both."""
    return ["csv"] + (["parquet"] if find_spec("pyarrow") else [])


@pytest.mark.parametrize("form", forms())
def test_a_part_or_a_changed_cell_is_no_export(tmp_path, small_folder, form):
    path = export(load(small_folder), tmp_path / f"r.{form}")
    frame = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)  # as anybody may
    assert frame["nll"].tolist() == load(small_folder)["nll"].tolist()
    assert frame[SEAL].nunique() == 1 and frame[SEAL].iloc[0].startswith("18 rows ")

    def write(changed):
        changed.to_csv(path, index=False) if form == "csv" else changed.to_parquet(path, index=False)

    other = frame.copy()
    other.loc[3, "nll"] += 1e-9
    for changed in (
        frame.iloc[:-1],
        frame.iloc[1:],
        frame.iloc[::-1],
        other,
        frame.drop(columns="ece"),
        frame.iloc[:0],
    ):
        write(changed)
        with pytest.raises(AnalysisError, match="not whole, or was changed"):
            load(path)
        write(changed.drop(columns=SEAL))  # as older versions wrote it, or somebody on purpose
        if len(changed) and "ece" in changed:
            assert len(load(path)) == len(changed)
    with pytest.raises(AnalysisError, match="no run records"):
        load(path)


@pytest.mark.parametrize("form", forms())
def test_half_a_file_is_one_line(tmp_path, small_folder, form):
    path = export(load(small_folder), tmp_path / f"r.{form}")
    content = path.read_bytes()
    for size in (0, 1, 4, len(content) // 3, content.rfind(b"\n", 0, -1) + 1, len(content) - 2):
        path.write_bytes(content[:size])
        with pytest.raises(AnalysisError) as error:
            load(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_cells_of_other_types_and_out_of_range(tmp_path, small_folder):
    path = export(load(small_folder), tmp_path / "r.csv")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=SEAL)
    for column, value, message in (
        ("acc", "7", "<= 1.0"), ("nll", "-1", ">= 0.0"), ("nll", "nan", "without nll"), ("nll", "x", "column nll holds"),
        ("teacher_nll", "x", "column teacher_nll holds"), ("seed", "1.5", "seed"), ("status", "fine", "status"),
        ("config", "{", "not valid JSON"), ("config", "[]", "config"), ("run", "", "run"),
    ):  # fmt: skip
        changed = frame.copy()
        changed.loc[2, column] = value
        changed.to_csv(path, index=False)
        with pytest.raises(AnalysisError, match=message):
            load(path)


def test_an_error_longer_than_a_csv_field_may_be(tmp_path):
    make_run(tmp_path, "kd", 0)
    change(make_run(tmp_path, "kd", 1, status="failed"), "error.message", "x" * 200_000)
    assert len(load(export(load(tmp_path), tmp_path / "r.csv"))["error"].iloc[1]) > 200_000


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
