"""Runs as trackers show them, read back by the trackers' own means."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.store import claim
from harness.store.claim import Claim
from harness.store.history import HISTORY, append_epoch, cut_history, read_history
from harness.store.identity import run_directory
from harness.store.record import RECORD, read_record, write_record
from harness.track import __main__ as track
from tests.heads import wait_for
from tests.planted import plant
from tests.running import configure, run
from tests.track.readers import READERS, Shown

TRACKERS = list(READERS)
LIVE = ["tensorboard", "mlflow"]


@pytest.fixture(autouse=True)
def _file_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # for the reader


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student and its two teachers."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    run(runs)
    return runs


@pytest.fixture
def student(trained: Path, tmp_path: Path) -> Path:
    """A student of one's own, to change, alone in its folder."""
    (source,) = trained.glob("*-kd-*")
    return Path(shutil.copytree(source, tmp_path / "runs" / source.name))


class Place:
    """A tracker of one's own: what is sent, and what it shows."""

    def __init__(self, kind: str, out: Path):
        self.kind, self.out = kind, out

    def send(self, *runs: Path, more: tuple[str, ...] = ()) -> int:
        return track.main([*map(str, runs), "--to", self.kind, "--out", str(self.out), *more])

    def shown(self) -> dict[str, Shown]:
        found = READERS[self.kind](self.out)
        assert len({page.name for page in found}) == len(found), "a run stands there twice"
        return {page.name: page for page in found}

    def files(self) -> dict[Path, tuple[int, int]]:
        """What it keeps, but for W&B's logs, to which its service writes a little later."""
        found = [path for path in self.out.rglob("*") if path.is_file() and "logs" not in path.parts]
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}


@pytest.fixture(params=TRACKERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path / "shown")


@pytest.fixture(params=LIVE)
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path / "shown")


def check(shown: Shown, student: Path) -> None:
    """A page holds every epoch of the history, and all of the record, once."""
    lines = read_history(student)
    for name, get in {
        "loss": lambda line: line["loss"],
        "validation/acc": lambda line: line["validation"]["acc"],
    }.items():
        assert shown.curves[name] == [(line["epoch"], pytest.approx(get(line), rel=1e-6)) for line in lines], name
    record = read_record(student)
    if record is None or record["status"] == "interrupted":
        assert not any(name.startswith("student/") for name in shown.curves) and shown.status == ""
        return
    assert shown.status == ("good" if record["status"] == "done" else "bad")
    for who, splits in (record["metrics"] or {}).items():
        for split, metrics in splits.items():
            for name, value in metrics.items():
                ((_, final),) = shown.curves[f"{who}/{split}/{name}"]
                assert final == pytest.approx(value, rel=1e-6), name
    assert float(shown.options["train.lr"]) == record["config"]["train"]["lr"]
    assert shown.options["method.name"] == record["config"]["method"]["name"]
    for text in (record["status"], record["provenance"]["code"], record["provenance"]["versions"]["torch"]):
        assert text in shown.said


def retrain(student: Path, kept: int, shift: float) -> None:
    """The last two epochs' lines again after so many, with other numbers, as a run that goes on writes them."""
    lines = read_history(student)
    cut_history(student, kept)
    for line in lines[kept:]:
        append_epoch(student, {**line, "loss": line["loss"] + shift, "elapsed_s": line["elapsed_s"] + shift})


def test_every_run_is_there_once_and_stays_as_it_is(place: Place, trained: Path, capsys) -> None:
    assert place.send(trained) == 0
    runs = {path.parent.name: path.parent for path in trained.rglob(RECORD)}
    shown = place.shown()
    assert shown.keys() == runs.keys() and len(runs) == 3
    for name, page in shown.items():
        check(page, runs[name])
    before = place.files()
    assert "sent 3 of 3 runs (3 new)" in capsys.readouterr().out
    assert place.send(trained, *runs.values()) == 0
    assert place.files() == before
    assert "sent" not in (said := capsys.readouterr().out) and "3 of 3 runs are there" in said


def test_a_run_that_grows_is_continued(live: Place, student: Path) -> None:
    record, lines = read_record(student), read_history(student)
    (student / RECORD).unlink()
    cut_history(student, 0)
    assert live.send(student) == 0 and not live.shown()
    for line in lines:
        append_epoch(student, line)
        assert live.send(student) == 0
        check(live.shown()[student.name], student)
    before = set(live.files())
    write_record(student, record)
    assert live.send(student) == 0
    check(live.shown()[student.name], student)
    assert before <= set(live.files()), "it was not continued, but written anew"


def test_an_epoch_that_is_trained_again_takes_the_place_of_the_first(live: Place, student: Path) -> None:
    record = read_record(student)
    (student / RECORD).unlink()
    live.send(student)
    lines = read_history(student)
    cut_history(student, 1)
    live.send(student)
    check(live.shown()[student.name], student)
    append_epoch(student, {**lines[1], "loss": 7.0})
    write_record(student, {**record, "status": "interrupted", "error": {"message": "stopped"}})
    live.send(student)
    check(live.shown()[student.name], student)


def test_a_run_that_is_forced_again_is_no_mixture(place: Place, student: Path, capsys) -> None:
    place.send(student)
    retrain(student, 0, 0.5)
    assert place.send(student) == 0
    check(place.shown()[student.name], student)
    assert "1 written anew" in capsys.readouterr().out


def test_a_record_that_says_something_else_since_is_said_once(place: Place, student: Path) -> None:
    place.send(student)
    record = read_record(student)
    write_record(student, {**record, "cost": {**record["cost"], "wall_s": 77.0}})
    assert place.send(student) == 0
    shown = place.shown()[student.name]
    check(shown, student)
    assert shown.curves["cost/wall_s"] == [(2, 77.0)]


def test_what_wandb_has_uploaded_is_said_to_be_of_before(student: Path, tmp_path: Path, capsys) -> None:
    place = Place("wandb", tmp_path / "shown")
    place.send(student)
    (file,) = place.out.glob("offline-run-*/*.wandb")
    file.with_suffix(".wandb.synced").touch()
    retrain(student, 0, 0.5)
    capsys.readouterr()
    assert place.send(student) == 0
    earlier = file.parent.name.split("-")[-1]
    assert f"{student.name}: W&B has an earlier page of it, {earlier}: delete that there" in capsys.readouterr().out
    assert len(list(place.out.glob("offline-run-*"))) == 2
    assert place.send(student) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_how_a_run_ended_badly_is_shown(place: Place, tmp_path: Path, status: str) -> None:
    config = configure(tmp_path / "runs")
    plant(run_directory(config), config, status)
    assert place.send(tmp_path / "runs") == 0
    (shown,) = place.shown().values()
    assert shown.status == "bad"
    assert status in shown.said and "E: why" in shown.said


def test_a_damaged_run_costs_itself(place: Place, trained: Path, tmp_path: Path, capsys) -> None:
    runs = Path(shutil.copytree(trained, tmp_path / "runs"))
    (student,) = runs.glob("*-kd-*")
    teacher = min((runs / "teachers").glob("*-m1-*"))
    (student / RECORD).write_text((student / RECORD).read_text().replace('"acc"', '"caa"', 1))
    (teacher / HISTORY).write_text('{"epoch": "one", "elapsed_s": 3}\n')
    assert place.send(runs) == 1
    assert len(place.shown()) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(any(name in line for line in said) for name in (student.name, teacher.name))


def test_a_folder_that_was_sent_twice_is_said(place: Place, student: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(student.parent, tmp_path / "copy")
    assert place.send(student.parent, tmp_path / "copy") == 1
    assert len(place.shown()) == 1
    assert f"the same run stands in {student}, too" in capsys.readouterr().err


def test_two_runs_in_folders_of_one_name_are_two(place: Place, tmp_path: Path, capsys) -> None:
    runs = [tmp_path / sweep / "best" for sweep in ("one", "other")]
    for seed, run_ in enumerate(runs):
        plant(run_, configure(tmp_path / "runs", seed=seed))
    for said in ("(2 new)", "2 of 2 runs are there"):
        assert place.send(*runs) == 0
        assert said in capsys.readouterr().out
        assert set(place.shown()) == {f"best-{read_record(run_)['hash']}" for run_ in runs}


def test_a_sender_that_was_killed_is_continued(student: Path, tmp_path: Path) -> None:
    """An event file cut anywhere becomes what it should be."""
    place = Place("tensorboard", tmp_path / "shown")
    place.send(student)
    (file,) = place.out.glob("*/events*")
    whole = file.read_bytes()
    for length in (0, 5, 30, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert place.send(student) == 0
        assert file.read_bytes() == whole
    file.write_bytes(whole[:40] + b"?" + whole[41:])
    assert place.send(student) == 0
    check(place.shown()[student.name], student)


@pytest.mark.parametrize("begun", [False, True])
def test_what_mlflow_did_not_take_whole_is_written_anew(
    student: Path, tmp_path: Path, begun: bool, monkeypatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the line is dead")

    place = Place("mlflow", tmp_path / "shown")
    record, lines = read_record(student), read_history(student)
    if begun:
        (student / RECORD).unlink()
        cut_history(student, 1)
        assert place.send(student) == 0
        append_epoch(student, lines[1])
        write_record(student, record)
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "set_terminated", refuse)
        assert place.send(student) == 1
    assert place.send(student) == 0
    check(place.shown()[student.name], student)


def test_watching_follows_a_run_to_its_end(live: Place, student: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(track, "EVERY_S", 0.1)
    record, lines = read_record(student), read_history(student)
    (student / RECORD).unlink()
    cut_history(student, 1)
    status: list[int] = []
    said: list[str] = []

    def heard(text: str) -> bool:
        said.append(capsys.readouterr().out)
        return text in "".join(said) or bool(status)

    with Claim(student):
        watch = threading.Thread(target=lambda: status.append(live.send(student, more=("--watch",))), daemon=True)
        watch.start()
        wait_for(lambda: heard("(1 new); 0 have ended"), "the first epoch")
        check(live.shown()[student.name], student)
        append_epoch(student, lines[1])
        wait_for(lambda: heard("(1 continued); 0 have ended"), "the second epoch")
        check(live.shown()[student.name], student)
        assert not status, "it ended before the run"
        write_record(student, record)
    wait_for(lambda: status, "its end")
    assert status == [0]
    check(live.shown()[student.name], student)


def test_two_senders_of_the_same_runs_do_not_mix(student: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(claim, "BEAT_S", 0.2)
    place = Place("tensorboard", tmp_path / "shown")
    with Claim(student.parent / ".track-tensorboard"):
        assert place.send(student) == 2
    assert "its runs are being sent, process" in capsys.readouterr().err
    assert not place.out.exists()
    assert place.send(student) == 0
    assert not list(student.parent.glob(".*"))


def test_what_cannot_be_sent_is_said_in_a_line(student: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for arguments, said in {
        (str(tmp_path / "none"), "--to", "wandb"): "no folder",
        (
            str(student / ".."),
            "--to",
            "tensorboard",
            "--out",
            str(student.parent / "board"),
        ): "would lie among the runs",
        (str(student), "--to", "tensorboard", "--project", "p"): "--out",
        (str(student), "--to", "mlflow", "--out", "http://127.0.0.1:9"): "127.0.0.1",
    }.items():
        assert track.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and said in line


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_missing_package_is_a_line_with_the_command(kind: str, student: Path) -> None:
    program = (
        "import sys; sys.modules[sys.argv[1]] = None; from harness.track.__main__ import main\n"
        "status = main([sys.argv[2], '--to', sys.argv[1]]); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    ended = subprocess.run([sys.executable, "-c", program, kind, str(student)], capture_output=True, text=True)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "pip install" in line and kind in line
