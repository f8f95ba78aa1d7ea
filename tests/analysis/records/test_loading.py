"""Reading runs: tolerant of what is missing, strict about what would mislead."""

import json
import sys

import pytest

from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.loading import failures, load
from analysis.records.metrics import metric, present
from harness.store.identity import run_hash
from harness.store.record import read_record, write_record
from tests.analysis.synthetic import change, make_run


def test_one_row_a_run(study_folder):
    runs = load(study_folder)
    assert len(runs) == 6 * 8
    assert sorted(runs["arm"].unique()) == [
        "combined", "combined[student_term=false]", "ensemble_kd", "kd", "perturbation", "weight_averaging",
    ]  # fmt: skip
    row = runs[(runs["arm"] == "kd") & (runs["seed"] == 3)].iloc[0]
    record = json.loads((study_folder / row["directory"] / "record.json").read_text())
    assert row["run"] == record["hash"]
    assert row["nll"] == record["metrics"]["student"]["test"]["nll"]
    assert row["ensemble_acc"] == record["metrics"]["ensemble"]["test"]["acc"]
    assert row["device_s"] == record["cost"]["device_s"]
    assert row["teachers_test_ambiguity"] == record["diagnostics"]["teachers"]["test"]["ambiguity"]


def test_any_number_of_folders_and_a_folder_twice(tmp_path, small_folder):
    make_run(tmp_path, "kd", 7)
    assert len(load(small_folder, tmp_path, small_folder)) == 6 * 3 + 1


def test_half_finished_sweeps(tmp_path):
    make_run(tmp_path / "deep" / "er", "kd", 0)
    make_run(tmp_path, "kd", 1, status="failed")
    (tmp_path / "kd-unfinished").mkdir()
    (tmp_path / "kd-unfinished" / "progress.json").write_text("{}")
    again = make_run(tmp_path, "kd", 2, files=False).rename(tmp_path / "kd-again")
    (again / "record.json").rename(again / "trained.json")
    (tmp_path / "kd-damaged").mkdir()
    (tmp_path / "kd-damaged" / "record.json").write_text('{"status": "do')
    with pytest.warns(AnalysisWarning, match="damaged record.*kd-damaged"):
        runs = load(tmp_path)
    assert sorted(runs["status"]) == ["done", "failed"]
    assert [path.split("/")[-1] for path in runs.attrs["unfinished"]] == ["kd-again", "kd-unfinished"]
    assert failures(runs)["error"].tolist() == ["RuntimeError: loss is not finite"]


def test_older_records_lack_things(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    for key in ("diagnostics", "shift", "ood"):
        change(directory, key, None)
    change(directory, "provenance", {"teachers": [], "data": None, "device": "cpu"})
    change(directory, "cost", {"wall_s": 1.0, "device_s": 1.0, "images_per_s": 1.0, "parameters": 1})
    change(directory, "metrics", {"student": read_record(directory)["metrics"]["student"]})
    change(make_run(tmp_path, "kd", 1), "metrics.student.test.aurc", 0.02)
    runs = load(tmp_path)
    assert runs["nll"].notna().all()
    assert runs.set_index("seed")["aurc"].isna().tolist() == [True, False]


def test_shift_ood_and_new_metrics_become_columns(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    change(directory, "shift", {"source": "builtin", "student": {"acc": 0.6, "nll": 1.5}, "teacher": {"acc": 0.5}})
    change(directory, "ood", {"noise": {"student": {"auroc_entropy": 0.9, "fpr95_entropy": 0.3}}})
    change(directory, "metrics.student.test.aurc", 0.02)
    row = load(tmp_path).iloc[0]
    assert row["teacher_shift_acc"] == 0.5
    assert (row["shift_acc"], row["ood_noise_auroc_entropy"], row["aurc"]) == (0.6, 0.9, 0.02)
    assert [m.column for m in present(list(row.index))][6:] == [
        "aurc", "shift_acc", "shift_nll", "ood_noise_auroc_entropy", "ood_noise_fpr95_entropy",
    ]  # fmt: skip
    assert metric("ood_noise_auroc_entropy").higher
    assert not metric("ood_noise_fpr95_entropy").higher
    assert metric("shift_acc").higher
    assert not metric("shift_nll").higher


def test_repeated_cells_keep_the_latest(tmp_path):
    make_run(tmp_path, "kd", 0)
    make_run(tmp_path, "kd", 0, diagnostics=True)
    with pytest.warns(AnalysisWarning, match="kept the latest"):
        runs = load(tmp_path)
    assert len(runs) == 1


def test_where_selects(tmp_path):
    make_run(tmp_path, "kd", 0)
    make_run(tmp_path, "kd", 1, train={"epochs": 10})
    runs = load(tmp_path, where={"train.epochs": "10", "method.name": "kd,combined"})
    assert runs["seed"].tolist() == [1]
    with pytest.raises(AnalysisError, match=r"train\.epochs=3"):
        load(tmp_path, where={"train.epochs": "3"})


def test_teachers_in_the_bank_are_no_rows(tmp_path):
    make_run(tmp_path, "kd", 0)
    bank = tmp_path / "teachers"
    teacher = make_run(bank, "supervised", 0)
    change(teacher, "config.seed", "teacher/0/1")
    training = bank / "digits-preresnet_tiny-set0-m2-0123456789ab"
    training.mkdir()
    (training / "progress.json").write_text("{}")
    runs = load(tmp_path)
    assert runs["method"].tolist() == ["kd"]
    assert runs.attrs["unfinished"] == []


def test_nothing_there(tmp_path):
    with pytest.raises(AnalysisError, match="no run records"):
        load(tmp_path)


def test_loading_grows_with_the_runs_and_no_faster(tmp_path):
    record = read_record(make_run(tmp_path / "one", "kd", 0, diagnostics=True))

    def calls(runs):
        for i in range(runs):
            record["config"]["seed"] = i
            record["hash"] = run_hash(record["config"])
            write_record(tmp_path / str(runs) / f"run{i}", record)
        made = 0

        def count(frame, event, argument):
            nonlocal made
            made += 1

        sys.setprofile(count)
        try:
            found = load(tmp_path / str(runs))
        finally:
            sys.setprofile(None)
        assert len(found) == runs
        return made

    calls(1)  # what is imported and found out once
    assert calls(2000) <= 4.2 * calls(500)
