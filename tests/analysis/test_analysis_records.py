"""Reading runs: tolerant of what is missing, strict about what would mislead."""

import json
import subprocess
import sys
import time
import types

import pytest
from synthetic import make_run, make_study

import analysis
from analysis import records
from analysis.records import AnalysisError, AnalysisWarning, Mixture, load
from analysis.study import Study, parse
from harness.config import INCIDENTAL


def change(directory, key, value):
    """Set one value of a record."""
    record = json.loads((directory / "record.json").read_text())
    *groups, name = key.split(".")
    node = record
    for group in groups:
        node = node.setdefault(group, {})
    node[name] = value
    (directory / "record.json").write_text(json.dumps(record))


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
    assert records.failures(runs)["error"].tolist() == ["RuntimeError: loss is not finite"]


def test_older_records_lack_things(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    record = json.loads((directory / "record.json").read_text())
    del record["diagnostics"], record["shift"], record["ood"], record["provenance"], record["cost"]
    del record["metrics"]["ensemble"], record["metrics"]["student"]["test"]["brier"]
    (directory / "record.json").write_text(json.dumps(record))
    make_run(tmp_path, "kd", 1)
    runs = load(tmp_path)
    assert runs["nll"].notna().all()
    assert runs.set_index("seed")["brier"].isna().tolist() == [True, False]


def test_shift_ood_and_new_metrics_become_columns(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    record = json.loads((directory / "record.json").read_text())
    record["shift"] = {"source": "builtin", "student": {"acc": 0.6, "nll": 1.5}, "teacher": {"acc": 0.5}}
    record["ood"] = {"noise": {"student": {"auroc_entropy": 0.9, "fpr95_entropy": 0.3}}}
    record["metrics"]["student"]["test"]["aurc"] = 0.02
    (directory / "record.json").write_text(json.dumps(record))
    row = load(tmp_path).iloc[0]
    assert row["teacher_shift_acc"] == 0.5
    assert (row["shift_acc"], row["ood_noise_auroc_entropy"], row["aurc"]) == (0.6, 0.9, 0.02)
    from analysis.metrics import metric, present

    assert [m.column for m in present(list(row.index))][6:] == [
        "aurc", "shift_acc", "shift_nll", "ood_noise_auroc_entropy", "ood_noise_fpr95_entropy",
    ]  # fmt: skip
    assert metric("ood_noise_auroc_entropy").higher
    assert not metric("ood_noise_fpr95_entropy").higher
    assert metric("shift_acc").higher
    assert not metric("shift_nll").higher


@pytest.mark.parametrize(
    "kind, other",
    [
        ("code", {"revision": "b" * 40}),
        ("data", {"fingerprint": "split1", "revision": "a" * 39 + "b"}),
        ("recipe", {"train": {"epochs": 10}}),
        ("teachers", {"teachers": [f"other-m{m}" for m in range(4)], "seed": 1}),
    ],
)
def test_mixtures_are_refused_with_the_list_and_marked_where_allowed(tmp_path, kind, other):
    seed = other.pop("seed", 1 if kind in ("code", "recipe") else 0)
    first = make_run(tmp_path, "ensemble_kd", 0)
    method = "weight_averaging" if kind == "data" else "ensemble_kd"
    second = make_run(tmp_path, method, seed, **other)
    with pytest.raises(Mixture, match=f"(?s)--allow-mixed.*{kind}") as refused:
        load(tmp_path, allow=())
    hashes = [json.loads((d / "record.json").read_text())["hash"] for d in (first, second)]
    assert all(h in str(refused.value) for h in hashes)
    with pytest.warns(AnalysisWarning, match=f"mixed on request: {kind}"):
        runs = load(tmp_path, allow=("all",))
    assert all(kind in mark for mark in runs["mixed"])
    assert runs.attrs["mixed"]


def test_seeds_and_crossed_teacher_sets_are_no_mixture(tmp_path):
    make_study(tmp_path, seeds=range(2), sets=range(2), files=False)
    assert set(load(tmp_path)["mixed"]) == {""}


def test_sets_that_no_seed_crosses_are_refused(tmp_path):
    for seed, number in ((0, 0), (1, 0), (2, 1)):
        make_run(tmp_path, "kd", seed, teacher_set=number)
    with pytest.raises(Mixture, match="not crossed with seeds"):
        load(tmp_path)


def test_a_hash_of_the_code_outweighs_the_revision(tmp_path):
    for seed, revision in enumerate("ab"):
        directory = make_run(tmp_path, "kd", seed, revision=revision * 40)
        record = json.loads((directory / "record.json").read_text())
        record["provenance"]["code"] = "same"
        (directory / "record.json").write_text(json.dumps(record))
    assert set(load(tmp_path)["mixed"]) == {""}


def test_another_method_of_other_code_is_a_warning(tmp_path):
    make_run(tmp_path, "kd", 0)
    make_run(tmp_path, "combined", 0, revision="b" * 40)
    with pytest.warns(AnalysisWarning, match="different code"):
        load(tmp_path)


@pytest.mark.parametrize("key", [*INCIDENTAL, "evaluate.diagnostics", "teachers.train.checkpoint_every"])
def test_incidental_configuration_is_no_mixture(tmp_path, key):
    make_run(tmp_path, "kd", 0)
    change(make_run(tmp_path, "kd", 1), f"config.{key}", "other")
    assert set(load(tmp_path, study=Study())["mixed"]) == {""}


@pytest.mark.parametrize("key", ["data.padding", "train.lr", "teachers.size", "teachers.train.epochs"])
def test_decisive_configuration_is_a_mixture(tmp_path, key):
    make_run(tmp_path, "kd", 0)
    change(make_run(tmp_path, "kd", 1), f"config.{key}", 77)
    with pytest.raises(Mixture, match=key):
        load(tmp_path)


def test_data_are_the_same_for_all_seeds_and_arms(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "kd", seed, fingerprint=f"split{seed}")
    with pytest.raises(Mixture, match=r"data in digits x preresnet_tiny: split0 \(1 runs"):
        load(tmp_path)


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


def test_factors_make_arms_of_a_difference(tmp_path):
    for size in (40, 10):
        make_run(tmp_path, "kd", 0, train={"epochs": size}, defaults=False)
    runs = load(tmp_path, study=Study(factors=("train.epochs",)))
    assert runs["arm"].nunique() == 2
    assert "kd[train.epochs=10]" in set(runs["arm"])


@pytest.mark.parametrize("defaults", [True, False])
def test_arms_are_named_by_what_differs_from_the_default(tmp_path, defaults):
    for seed in range(3):
        make_run(tmp_path, "kd", seed, defaults=defaults)
    make_run(tmp_path, "kd", 0, options={"temperature": 1.0}, defaults=defaults)
    make_run(tmp_path, "combined", 0, options={"temperature": 1.0}, defaults=defaults)
    runs = load(tmp_path)
    assert sorted(runs["arm"].unique()) == ["combined", "kd", "kd[temperature=1.0]"]


def test_a_study_names_its_arms(tmp_path):
    make_run(tmp_path, "combined", 0)
    make_run(tmp_path, "combined", 0, options={"student_term": False})
    study = parse({"arms": {"clean": {"method.name": "combined", "method.student_term": False}}}, "test")
    assert sorted(load(tmp_path, study=study)["arm"]) == ["clean", "combined"]


@pytest.mark.parametrize("name", analysis.__all__)
def test_public_names_stay_what_they_are(name):
    first = getattr(analysis, name)
    assert getattr(analysis, name) is first
    assert callable(first) != isinstance(first, types.ModuleType)


def test_a_study_may_nest_its_arms():
    nested = parse({"arms": {"clean": {"method": {"name": "combined", "student_term": False}}}}, "test")
    assert nested.arms == {"clean": {"method.name": "combined", "method.student_term": False}}


@pytest.mark.filterwarnings("error")
def test_export_and_back(tmp_path, study_folder):
    runs = load(study_folder)
    again = load(records.export(runs, tmp_path / "runs.csv"))
    assert list(again["run"]) == list(runs["run"])
    assert list(again["arm"]) == list(runs["arm"])
    assert again["config"].tolist() == runs["config"].tolist()
    for name in ("nll", "acc", "device_s", "teachers_test_ambiguity", "seed", "parameters"):
        assert again[name].tolist() == runs[name].tolist()


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    directory = make_run(tmp_path, "kd", 0)
    for key, value in {"provenance.host": "007", "hash": "12345678e012", "provenance.data": "1e5"}.items():
        change(directory, key, value)
    row = load(records.export(load(tmp_path), tmp_path / "runs.csv")).iloc[0]
    assert (row["host"], row["run"], row["data_fingerprint"], row["torch"]) == ("007", "12345678e012", "1e5", "2.14")


def test_parquet_and_back_or_a_clear_error(tmp_path, small_folder):
    runs = load(small_folder)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(AnalysisError, match="need pyarrow"):
            records.export(runs, tmp_path / "runs.parquet")
    else:
        assert list(load(records.export(runs, tmp_path / "runs.parquet"))["nll"]) == list(runs["nll"])


@pytest.mark.parametrize("content, message", [("a,b\n1,2\n", "not an exported table"), (None, "no such file")])
def test_bad_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "x.csv"
    if content:
        path.write_text(content)
    with pytest.raises(AnalysisError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_teachers_in_the_bank_are_no_rows(tmp_path):
    make_run(tmp_path, "kd", 0)
    bank = tmp_path / "teachers"
    teacher = make_run(bank, "supervised", 0)
    record = json.loads((teacher / "record.json").read_text())
    record["config"]["seed"] = "teacher/0/1"
    (teacher / "record.json").write_text(json.dumps(record))
    training = bank / "digits-preresnet_tiny-set0-m2-0123456789ab"
    training.mkdir()
    (training / "progress.json").write_text("{}")
    runs = load(tmp_path)
    assert runs["method"].tolist() == ["kd"]
    assert runs.attrs["unfinished"] == []


def test_nothing_there(tmp_path):
    with pytest.raises(AnalysisError, match="no run records"):
        load(tmp_path)


def test_import_is_light_and_without_torch():
    code = (
        "import time; t = time.process_time(); import analysis, analysis.__main__, sys; "
        "print(time.process_time() - t, 'torch' in sys.modules)"
    )
    seconds, torch = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(seconds) < 2
    assert torch == "False"


def test_the_whole_of_analysis_runs_without_torch(small_folder):
    code = (
        "import sys; from analysis.__main__ import main; "
        f"main(['table', {str(small_folder)!r}]); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_ten_thousand_runs_load_in_ten_seconds(tmp_path):
    directory = make_run(tmp_path / "one", "kd", 0, diagnostics=True)
    record = json.loads((directory / "record.json").read_text())
    for i in range(10_000):
        record["hash"], record["config"]["seed"] = f"{i:012x}", i
        run = tmp_path / "many" / f"run{i}"
        run.mkdir(parents=True)
        (run / "record.json").write_text(json.dumps(record))
    start = time.process_time()  # what a busy machine does beside is not measured
    runs = load(tmp_path / "many")
    assert time.process_time() - start < 10
    assert len(runs) == 10_000
