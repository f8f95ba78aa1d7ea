"""A sequential study from its command to its verdict, killed in the middle and called again."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.records.looks import read_looks
from harness.store.record import read_record, write_record
from harness.study import main
from tests.heads import Head, one, records

pytestmark = pytest.mark.slow
LOOKS = (4, 6, 8)
STUDY = (
    "study={question:'Are two teachers better than one?',primary:nll,baseline:ensemble_kd,"
    "families:{teachers:{pairs:[[kd,ensemble_kd]]}},sequential:{looks:[4,6,8],spending:pocock}%s}"
)
OPTIONS = (
    "hydra.sweeper.arms=['method=kd','method=ensemble_kd']",
    *("seed=range(8)", "train=smoke", "teachers.size=2", "threads=1", "evaluate.diagnostics=false"),
)


def study(runs: Path, *more: str, margins: str = "") -> Head:
    """As a process of its own, which can be killed."""
    return Head(*OPTIONS, STUDY % margins, *more, runs=runs, module="harness.study")


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The same in this process; its exit status and what it said."""

    def study_here(runs: Path, *more: str, margins: str = "") -> tuple[int, str]:
        status = main([*OPTIONS, STUDY % margins, *more, f"runs={runs}"])
        return status, "".join(capsys.readouterr())

    return study_here


@pytest.fixture
def refused(here: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """What it said, where it was refused."""

    def study_refused(*arguments: Any, **options: str) -> str:
        status, said = here(*arguments, **options)
        assert status == 2, said
        return said

    return study_refused


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was killed after its first look."""
    runs = tmp_path_factory.mktemp("looked")
    head = study(runs)
    head.until(lambda: ended(head) or ((runs / "looks.jsonl").exists() and log(runs)), "the first look")
    head.send(signal.SIGKILL)
    head.ends()
    return runs


def log(runs: Path) -> list[dict]:
    return read_looks(runs)


def content(runs: Path) -> list[dict]:
    """The looks without what differs between any two studies: when, and so the seals."""
    return [{k: v for k, v in look.items() if k not in ("taken", "digest", "previous")} for look in log(runs)]


def students(runs: Path) -> int:
    return len([name for name in records(runs) if "-set0-m" not in name])


def ended(head: Head) -> bool:
    return head.process.poll() is not None


def test_killed_and_called_again_it_comes_to_the_same_looks(here: Callable, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    status, said = here(whole)
    assert status == 0, said
    assert [len(look["seeds"]) for look in log(whole)] == list(LOOKS)

    head = study(cut)
    head.until(lambda: ended(head) or students(cut) >= 3, "some runs of the first look")
    head.send(signal.SIGKILL)
    head.ends()
    assert not (cut / "looks.jsonl").exists(), "nothing is judged between looks"
    head = study(cut)
    head.until(lambda: ended(head) or students(cut) >= 10, "some runs of the second look")
    head.send(signal.SIGKILL)
    head.ends()
    assert len(log(cut)) == 1
    before = (cut / "looks.jsonl").read_text()
    with (cut / "looks.jsonl").open("a") as file:
        file.write('{"format": 1, "look": 2, "ta')  # a look that a dying process cut short
    status, said = here(cut)
    assert status == 0, said
    assert "look 2 of up to 3, at 6 seeds" in said
    assert (cut / "looks.jsonl").read_text().startswith(before), "what is logged is never rewritten"
    assert content(cut) == content(whole)

    status, said = here(cut)
    assert status == 0 and "the study has ended at look 3" in said
    assert len(log(cut)) == 3


def test_it_stops_when_it_knows(here: Callable, tmp_path: Path) -> None:
    status, said = here(tmp_path, margins=",margins:{nll:2.0}")
    assert status == 0, said
    (last,) = log(tmp_path)[-1]["standings"]
    assert (last["verdict"], last["decided"]) == ("equivalent", 2)
    assert students(tmp_path) == 12
    assert "12 runs of the 16 that all seeds would have taken" in said


def test_runs_that_were_looked_at_must_not_change(refused: Callable, looked: Path, tmp_path: Path) -> None:
    shutil.copytree(looked, tmp_path, dirs_exist_ok=True)
    place = one(tmp_path, "*-ensemble_kd-s2-*")
    record = read_record(place)
    record["metrics"]["student"]["test"]["nll"] += 0.5
    write_record(place, record)
    assert "are not those that look 1 saw" in refused(tmp_path)
    assert len(log(tmp_path)) == 1


def test_another_recipe_is_another_study(refused: Callable, looked: Path, tmp_path: Path) -> None:
    shutil.copytree(looked, tmp_path, dirs_exist_ok=True)
    before = students(tmp_path)
    assert "has looks of a study that was declared otherwise" in refused(tmp_path, "train.lr=0.01")
    assert "has looks at seeds in another order" in refused(tmp_path, "seed=7,6,5,4,3,2,1,0")
    (tmp_path / "looks.jsonl").unlink()
    said = refused(tmp_path, margins=",alpha:0.2")
    assert "were not made under this study" in said and "use another runs=FOLDER" in said
    assert students(tmp_path) == before
    assert not (tmp_path / "looks.jsonl").exists()


def test_failed_runs_have_ended_as_the_worst(tmp_path: Path) -> None:
    """In a pool of processes; and a run that failed is not tried again, which would be to choose among its outcomes."""
    arms = "hydra.sweeper.arms=['method=raises','method=supervised']"
    declared = (
        "study={primary:nll,families:{f:{pairs:[[raises,supervised]]}},"
        "sequential:{looks:[4,6],spending:pocock,statistic:rank}}"
    )
    command = (arms, "seed=range(6)", "train=smoke", "threads=1", "evaluate.diagnostics=false", declared)
    pool = ("hydra/launcher=submitit_local", "sweep.workers=2")
    head = Head(*command, *pool, runs=tmp_path, module="harness.study", plugin=True)
    assert head.ends() == 0, head.said
    first, last = log(tmp_path)
    assert [s["verdict"] for s in (*first["standings"], *last["standings"])] == ["open", "worse"]
    assert last["standings"][0]["differences"] == ["inf"] * 6
    assert len(last["failed"]) == 6
    attempts = {place.name: place.read_text() for place in tmp_path.glob("*raises*/attempts.jsonl")}
    again = Head(*command, runs=tmp_path, module="harness.study", plugin=True)
    assert again.ends() == 0
    assert attempts == {place.name: place.read_text() for place in tmp_path.glob("*raises*/attempts.jsonl")}


def test_what_is_no_sequential_study_is_refused(
    refused: Callable, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["method=kd", "seed=0,1", f"runs={tmp_path}"]) == 2
    assert "declares no `study.sequential`" in capsys.readouterr().err
    assert "the last look needs 8 seeds, the sweep has 5" in refused(tmp_path, "seed=range(5)")
    assert "the sweep has no runs of ensemble_kd" in refused(tmp_path, "hydra.sweeper.arms=['method=kd']")
    assert "force=true would replace runs" in refused(tmp_path, "force=true")


def test_a_plan_says_what_looking_may_save(here: Callable, tmp_path: Path) -> None:
    status, said = here(tmp_path, "harness.plan=true")
    assert status == 0, said
    assert "8 runs: 0 done before, 8 to run" in said
    assert "at most 16 students" in said
    assert "by 2 standard deviations: about 1" in said
    assert not records(tmp_path)
