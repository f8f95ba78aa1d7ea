"""What a failure leaves behind, and who does not suffer from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.config import ConfigError
from harness.jobs import death
from harness.jobs.death import Death
from harness.jobs.queue import QueueUnreachable
from harness.jobs.slurm import QueueFull, Slurm, refusal
from harness.run.run import execute
from harness.run.teachers import teacher_config
from harness.runtime.console import Console
from harness.store.aside import BEFORE, TRAINED, bring_back, forget_aside, forget_before, set_aside
from harness.store.identity import run_directory
from harness.store.record import read_record, write_record
from harness.sweep.submission import Submitter
from harness.sweep.summary import sweep_table
from tests import formats
from tests.heads import Head
from tests.planted import plant
from tests.running import configure, run

KILLED = Death("job 7 died", "log", "OUT_OF_MEMORY")


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return configure(tmp_path, "kd")


@pytest.mark.parametrize("status", ["done", "failed", "diverged"])
def test_a_record_of_the_run_itself_wins(tmp_path: Path, config: dict[str, Any], status: str) -> None:
    own = plant(tmp_path, config, status)
    assert death.bury(tmp_path, config, KILLED) == own
    assert read_record(tmp_path) == own


@pytest.mark.parametrize("before", [None, "interrupted", "damaged"])
def test_a_run_that_could_not_tell_its_end_gets_a_record(config: dict[str, Any], before: str | None) -> None:
    directory = run_directory(config)
    directory.mkdir()
    if before == "damaged":
        (directory / "record.json").write_text("{")
    elif before:
        plant(directory, config, before)
    record = death.bury(directory, config, KILLED)
    assert record == read_record(directory)
    assert record["status"] == "failed"
    assert record["error"]["message"] == "job 7 died"
    assert (directory / "attempts.jsonl").read_text().count('"died"') == 1
    assert len(list(directory.glob("record.damaged-*.json"))) == (before == "damaged")


def test_a_run_that_dies_while_it_is_only_evaluated_stays_done(config: dict[str, Any]) -> None:
    directory = run_directory(config)
    plant(directory, config)
    (directory / "record.json").rename(directory / TRAINED)
    assert death.bury(directory, config, KILLED)["status"] == "done"
    assert read_record(directory)["status"] == "done"
    assert (directory / "attempts.jsonl").read_text().count('"died"') == 1


def test_what_a_run_has_found_out_since_is_not_undone(config: dict[str, Any]) -> None:
    directory = run_directory(config)
    earlier = plant(directory, config)
    (directory / "record.json").rename(directory / TRAINED)
    later = write_record(directory, {**earlier, "notes": ["evaluated again"]})
    assert death.bury(directory, config, KILLED) == later
    assert read_record(directory) == later


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("status", ["done", "failed"])
def test_what_is_set_aside_comes_back(tmp_path: Path, config: dict[str, Any], status: str, anew: bool) -> None:
    plant(tmp_path, config, status)
    for name in ("submission.json", "checkpoint.pt"):
        (tmp_path / name).write_text(name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    set_aside(tmp_path, anew)
    assert read_record(tmp_path) is None
    assert not (tmp_path / "submission.json").exists()
    bring_back(tmp_path, anew)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("status", ["done", "failed"])
def test_once_submitted_a_run_is_as_if_it_had_not_ended(tmp_path: Path, config: dict[str, Any], status: str) -> None:
    plant(tmp_path, config, status)
    (tmp_path / "checkpoint.pt").write_text("c")
    files = {path.name for path in tmp_path.iterdir()} - {"record.json"}
    set_aside(tmp_path, anew=False)
    forget_aside(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == files | ({TRAINED} if status == "done" else set())


def test_a_run_anew_keeps_what_there_was_until_it_has_as_much(tmp_path: Path, config: dict[str, Any]) -> None:
    known = plant(tmp_path, config)
    for _ in range(2):  # the second time after an attempt that failed
        set_aside(tmp_path, anew=True)
        forget_aside(tmp_path)
        assert read_record(tmp_path) is None
        assert read_record(tmp_path, f"record.json{BEFORE}") == known
        plant(tmp_path, config, "failed")
    forget_before(tmp_path)
    assert not list(tmp_path.glob(f"*{BEFORE}"))


def test_a_diverged_teacher_is_not_its_students_divergence(tmp_path: Path) -> None:
    options = {"train__lr": 1e30, "train__steps_per_epoch": 10}
    with pytest.raises(RuntimeError, match=r"teacher .*-m0-.* has diverged: the loss became"):
        run(tmp_path, "kd", **options)
    config = configure(tmp_path, "kd", **options)
    assert read_record(run_directory(config))["status"] == "failed"
    assert read_record(run_directory(teacher_config(config, 0)))["status"] == "diverged"


def test_a_job_does_not_train_a_teacher_that_has_failed(config: dict[str, Any]) -> None:
    teacher = run_directory(teacher_config(config, 0))
    failed = plant(teacher, teacher_config(config, 0), "failed")
    with pytest.raises(RuntimeError, match=r"teacher .*-m0-.* has failed: why"):
        execute(config, Console(), retry_teachers=False)
    assert read_record(teacher) == failed
    assert execute(config, Console())["status"] == "done", "the same command by hand tries it again"


@pytest.mark.slow
def test_a_run_that_cannot_be_does_not_end_the_sweep(tmp_path: Path) -> None:
    command = ("-m", "method=supervised", "train.batch_size=600,50", "train.epochs=2", "train.warmup_epochs=0")
    head = Head(*command, runs=tmp_path)
    assert head.ends() == 1, head.said
    assert "1 of 2 runs done" in head.said
    assert "failed: train.batch_size=600 is more than the 500 train images" in head.said


@pytest.mark.slow
def test_processes_of_a_sweep_find_the_folder_that_was_meant(tmp_path: Path) -> None:
    formats.write_folders(tmp_path / "photos")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    options = ("data=folder", "data.root=link", "data.image_size=8", "data.validation=5")
    short = ("train=smoke", "train.batch_size=5", "sweep.workers=1")
    head = Head("-m", "method=supervised", *options, *short, runs=tmp_path / "runs", folder=tmp_path)
    assert head.ends() == 0, head.said


def test_the_best_is_the_best_on_its_data_and_network(tmp_path: Path) -> None:
    def record(model: str, method: str, acc: float) -> dict[str, Any]:
        config = configure(tmp_path, method, model=model)
        test = {"acc": acc, **dict.fromkeys(("nll", "brier", "ece", "nll_ts", "ece_ts"), acc)}
        metrics = {"student": {"test": test}}
        return {"config": config, "metrics": metrics, "cost": {"device_s": 1.0}, "provenance": {"teachers": []}}

    records = [record(model, method, acc) for model, method, acc in
               (("wrn16_2", "kd", 0.5), ("wrn16_2", "ensemble_kd", 0.6), ("wrn28_4", "kd", 0.9))]  # fmt: skip
    cells = list(sweep_table(records).columns[1].cells)
    assert cells == ["50.00", "[bold]60.00[/bold]", "90.00"]


def test_a_pair_needs_its_members(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method=perturbation needs at least 6 teachers"):
        configure(tmp_path, "perturbation", method__pair=[0, 5])


@pytest.mark.parametrize("room", range(8))
@pytest.mark.parametrize("count", range(1, 8))
def test_a_queue_is_filled_to_its_last_place(monkeypatch: pytest.MonkeyPatch, count: int, room: int) -> None:
    """The arithmetic of splitting alone; tests/slurm has a real full queue."""
    runs = {Path(f"run-{k}"): {} for k in range(count)}
    slurm = Slurm.__new__(Slurm)
    slurm.pack, slurm.jobs, slurm.unsubmitted, slurm.shape = 1, {}, set(), lambda place: {}

    def submit_array(shape: Any, packs: list[list[Path]], *_: Any) -> None:
        assert 0 < len(packs) <= 4
        if len(slurm.jobs) + len(packs) > room:
            raise QueueFull("no room")
        for (place,) in packs:
            slurm.jobs[place] = str(len(slurm.jobs))
            slurm.unsubmitted.discard(place)

    monkeypatch.setattr(slurm, "submit_array", submit_array)
    monkeypatch.setattr("harness.jobs.queue.largest_array", lambda: 4)
    if room == 0:
        with pytest.raises(ConfigError, match="no room"):
            slurm.submit(runs)
    else:
        slurm.submit(runs)
    assert list(slurm.jobs) == list(runs)[:room]
    assert slurm.unsubmitted == set(list(runs)[room:])


def test_a_failed_run_whose_job_lives_is_not_submitted_beside_it(tmp_path: Path) -> None:
    """Somebody had the job requeued; one that is done but is asked for more is another matter: it only shares its job."""
    asked = {
        name: configure(tmp_path, "kd", seed=seed, evaluate__shift=True) for seed, name in enumerate(("failed", "done"))
    }
    places = {name: run_directory(config) for name, config in asked.items()}
    runs = {places[name]: config for name, config in asked.items()} | {tmp_path / "none": asked["done"]}
    known = {
        name: plant(places[name], {**config, "evaluate": {**config["evaluate"], "shift": False}}, name)
        for name, config in asked.items()
    }
    submitted: list[Path] = []
    backend = SimpleNamespace(adopt=set, unsubmitted=set(), submit=lambda todo, *_: submitted.extend(todo))
    assert Submitter(tmp_path, backend, Console()).submit(runs) == 1
    assert submitted == [places["done"]]
    assert read_record(places["failed"]) == known["failed"]
    assert read_record(places["done"], TRAINED) == known["done"]


def test_what_sbatch_says_is_understood() -> None:
    full = ("AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit")
    away = ("Socket timed out on send/recv operation", "Unable to contact slurm controller (connect failure)")
    assert [type(refusal(f"sbatch: error: {said}")) for said in full] == [QueueFull] * 3
    assert [type(refusal(f"sbatch: error: {said}")) for said in away] == [QueueUnreachable] * 2
    violated = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    assert type(refusal(f"sbatch: error: QOSMaxWallDurationPerJobLimit sbatch: error: {violated}")) is ConfigError
