"""A number is the number of the run that it is shown for: copies, swaps, lost files, notes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.exports import export
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.summary import summarise
from harness.store.record import RECORD
from tests.analysis.synthetic import change, make_run, make_study
from tests.damage import in_time


def old_copy(directory: Path, place: Path, **test: float) -> Path:
    """A record as version 1 wrote it, which has no digest, in another folder and with other numbers."""
    record = json.loads((directory / RECORD).read_text())
    record["version"] = 1
    record["metrics"]["student"]["test"] |= test
    place.mkdir(parents=True)
    (place / RECORD).write_text(json.dumps({k: v for k, v in record.items() if k not in ("digest", "files")}))
    return place


@pytest.mark.filterwarnings("error")
def test_copies_that_say_the_same_are_one_run_and_the_one_with_its_files_is_kept(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "b", "kd", 0)
    for place in ("a", "c"):
        shutil.copytree(directory, tmp_path / place / "backup", ignore=lambda *_: ["predictions.npz"])
    runs = load(tmp_path)
    assert runs["directory"].tolist() == [str(directory)]
    path = export(runs, tmp_path / "r.csv")
    assert load(path, tmp_path)["directory"].tolist() == [str(directory)]


@pytest.mark.parametrize("first", ["a", "z"])
def test_copies_that_differ_are_refused_with_both_places(tmp_path: Path, first: str) -> None:
    """Which of them is read first and which last decides nothing."""
    directory = make_run(tmp_path / "m", "kd", 0)
    other = old_copy(directory, tmp_path / first / "copy", nll=2.79)
    with pytest.raises(AnalysisError, match=r"differ.*nll") as error:
        load(tmp_path)
    assert str(directory) in str(error.value) and str(other) in str(error.value)
    path = export(load(other), tmp_path / "r.csv")
    with pytest.raises(AnalysisError, match=r"r\.csv"):
        load(directory, path)


def test_records_swapped_between_folders_cost_both_and_no_other(tmp_path: Path) -> None:
    a, b, c = (make_run(tmp_path, "kd", seed) for seed in range(3))
    (a / RECORD).rename(tmp_path / "x")
    (b / RECORD).rename(a / RECORD)
    (tmp_path / "x").rename(b / RECORD)
    with pytest.warns(AnalysisWarning, match="is the record of another run") as said:
        assert load(tmp_path)["directory"].tolist() == [str(c)]
    assert {name for name in (a.name, b.name) if any(name in str(one.message) for one in said)} == {a.name, b.name}


def test_a_newer_record_is_left_out_with_what_to_do(tmp_path: Path) -> None:
    make_run(tmp_path, "kd", 0)
    newer = make_run(tmp_path, "kd", 1)
    record = json.loads((newer / RECORD).read_text())
    (newer / RECORD).write_text(json.dumps(record | {"version": 99}))
    with pytest.warns(AnalysisWarning, match=r"left out a record: .* is of version 99.*upgrade"):
        assert load(tmp_path)["seed"].tolist() == [0]


def test_runs_whose_files_are_gone_are_counted_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        directory = make_run(tmp_path, "kd", seed)
    (directory / "student.safetensors").unlink()
    with pytest.warns(AnalysisWarning, match="the files of 1 done runs are gone"):
        runs = load(tmp_path)
    assert runs.attrs["lost"] == [directory.name[-12:]]
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    assert "of 1 done runs; their records alone are counted" in (tmp_path / "r.html").read_text()


NOTE = "it answers class 0 for every test image"


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, str]:
    """A sweep in which one run is odd, and its hash."""
    make_study(tmp_path / "runs", seeds=range(3), methods=("kd", "combined"), clean=False)
    directory = change(next((tmp_path / "runs").glob("kd-digits-s1-*")), "notes", [NOTE])
    return tmp_path / "runs", directory.name[-12:]


def test_notes_stand_where_the_numbers_are(odd: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, run = odd
    line = f"Odd, and in the means: 1 of 6 finished runs: {NOTE} ({run})."
    with pytest.warns(AnalysisWarning, match="Odd, and in the means"):
        runs = load(folder)
    assert summarise(runs, Study()).missing == [line]
    export(runs, tmp_path / "r.csv")
    baseline = str(tmp_path / "b.json")
    assert main(["freeze", str(folder), "-o", baseline]) == 0
    for words in (
        ["table"], ["contrasts"], ["compare", "combined", "kd"], ["table", "--format", "html"],
        ["contrasts", "--format", "markdown"], ["regress", "--baseline", baseline],
    ):  # fmt: skip
        for source in (str(folder), str(tmp_path / "r.csv")):
            capsys.readouterr()
            main([*words, source])
            assert line in capsys.readouterr().out, words
    main(["regress", "--baseline", baseline, str(folder)])
    assert f"1 of 6 frozen runs: {NOTE}" in capsys.readouterr().out


def test_numbers_that_are_none_are_noted_not_averaged(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good", "kd", 0)
    old_copy(make_run(tmp_path / "x", "kd", 1), tmp_path / "good" / "old", aurc=float("nan"), dee=float("inf"))
    change(good, "metrics.student.test.aurc", 0.02)
    with pytest.warns(AnalysisWarning, match="aurc is no number"):
        runs = load(tmp_path / "good")
    assert runs["aurc"].tolist()[0] == 0.02
    assert runs["aurc"].isna().tolist() == [False, True]


def test_a_metric_cannot_take_the_place_of_a_fact(tmp_path: Path) -> None:
    directory = change(make_run(tmp_path, "kd", 0), "metrics.student.test.status", 1.0)
    directory = change(directory, "metrics.student.test.seed", 7.0)
    (row,) = load(directory).to_dict("records")
    assert (row["status"], row["seed"]) == ("done", 0)


def test_measures_that_nobody_knows_are_no_error(tmp_path: Path) -> None:
    change(make_run(tmp_path, "kd", 0), "shift", {"source": "x", "student": {"strange": 1.0, "nll": 1.0}})
    assert main(["table", str(tmp_path)]) == 0


def test_links_that_lead_back_and_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "runs", "kd", 0)
    for name in ("loop", "and", "another"):  # to follow them all for as long as they lead on takes for ever
        (tmp_path / "runs" / name).symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "closed").mkdir()
    real = os.scandir

    def scandir(path: Path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(AnalysisWarning, match="left out .*closed: Permission denied"), in_time():
        assert len(load(tmp_path / "runs")) == 1


@pytest.mark.parametrize("kind", ["pipe", "link", "device"])
def test_a_path_that_is_neither_a_folder_nor_a_file(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/null") if kind == "device" else tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(AnalysisError, match="neither a folder nor a file"):
        load(path)
