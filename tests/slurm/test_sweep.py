"""The users' command on a real cluster: teachers first, nothing twice, and a head that may go away."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.configuration import user_name
from slurm.lab import Lab
from tests.heads import ROOT, TINY, Head, directories, events, job_of, one, records

pytestmark = pytest.mark.slurm
Start = Callable[..., Head]


def has_run_once(directory: Path) -> bool:
    """Whether exactly one attempt, of one job, was made of a run, and it was done."""
    return [event["event"] for event in events(directory)] == ["started", "ended"]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own, that a test may break."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("harness", "methods", "sweeps", "slurm"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def two_heads(start: Start, code: Path) -> list[Head]:
    """The command as users type it, and once more in another terminal; meanwhile somebody breaks the code."""
    command = ("method=all", "seed=0,1,2", *TINY, "hydra.launcher.gpus_per_node=1")
    first = start(*command, code=code)
    first.until(lambda: "teachers: 2 submitted" in first.said, "first submission")
    second = start(*command, code=code, runs=first.runs)
    second.until(lambda: "submitted before" in second.said, "second submission")
    broken = code / "harness" / "training" / "trainer.py"
    broken.write_text(broken.read_text() + "\nraise RuntimeError('an edit during the sweep')\n")
    for head in (first, second):
        assert head.ends() == 0, head.said
    return [first, second]


def test_the_users_command_ends_with_the_table(two_heads: list[Head]) -> None:
    assert "15 runs: 0 done before, 15 to run, 2 teachers to train first" in two_heads[0].said
    for head in two_heads:
        assert "15 runs: 0 done before, 15 to run" in head.said
        for variant in ("kd", "ensemble_kd", "weight_averaging", "perturbation", "combined"):
            row = re.search(rf"^│ {variant} .*$", head.said, re.MULTILINE)
            assert row, head.said
            assert re.search(r"│ +3 │", row[0]), "three seeds in each row"
        assert "15 of 15 runs done" in head.said


def test_a_second_submission_runs_nothing_twice(two_heads: list[Head]) -> None:
    runs = directories(two_heads[0].runs)
    assert len(runs) == 17
    assert [run.name for run in runs if not has_run_once(run)] == []
    submitted = [re.findall(r"students: (\d+) submitted", head.said) for head in two_heads]
    assert sum(int(number) for found in submitted for number in found) == 15


def test_teachers_end_before_students_start(two_heads: list[Head]) -> None:
    runs = directories(two_heads[0].runs)
    teachers = [events(run, "ended")[0]["time"] for run in runs if run.parent.name == "teachers"]
    students = [events(run, "started")[0]["time"] for run in runs if run.parent.name != "teachers"]
    assert len(teachers) == 2
    assert max(teachers) < min(students)


def test_a_sweep_larger_than_an_array_takes_several(two_heads: list[Head], busy_lab: Lab) -> None:
    arrays = Counter(
        record["provenance"]["slurm"]["array_job_id"]
        for record in records(two_heads[0].runs).values()
        if record["provenance"]["teachers"]
    )
    assert sorted(arrays.values()) == [3, 6, 6], "MaxArraySize is 6"


def test_a_job_runs_the_code_of_its_submission(two_heads: list[Head], code: Path) -> None:
    found = records(two_heads[0].runs).values()
    assert {record["status"] for record in found} == {"done"}
    (code_hash,) = {record["provenance"]["code"] for record in found}
    now = subprocess.run(
        [sys.executable, "-c", "from harness.store.provenance import code; print(code())"],
        cwd=code,
        capture_output=True,
        text=True,
        check=True,
    )
    assert now.stdout.strip() != code_hash, "the checkout has changed meanwhile"


def test_a_small_network_has_one_thread_whatever_its_job_was_granted(two_heads: list[Head]) -> None:
    found = records(two_heads[0].runs).values()
    assert {record["provenance"]["threads"] for record in found} == {1}


def test_runs_on_one_node_have_a_gpu_each(two_heads: list[Head]) -> None:
    attempts = []
    for run in directories(two_heads[0].runs):
        began, ended = events(run)
        attempts.append((began["slurm"]["node"], began["time"], ended["time"], began["gpus"]))
    assert {gpu for _, _, _, gpu in attempts} == {"0", "1"}
    beside = [
        (mine[3], other[3])
        for mine in attempts
        for other in attempts
        if mine is not other and mine[0] == other[0] and mine[1] < other[2] and other[1] < mine[2]
    ]
    assert beside, "some runs shared a node"
    assert all(mine != other for mine, other in beside)


def test_the_plan_tells_what_would_run_and_submits_nothing(two_heads: list[Head], start: Start) -> None:
    head = start("method=all", "seed=0,1,2,3", *TINY, "teachers.set=0,1", "harness.plan=true", runs=two_heads[0].runs)
    assert head.ends() == 0, head.said
    assert "40 runs: 15 done before, 25 to run, 2 teachers to train first" in head.said
    assert re.search(r"about \d+\.\d+ \S+-hours", head.said)
    assert "arrays: 2 teachers (1 array), then 25 students (5 arrays)" in head.said
    assert len(directories(head.runs)) == 17


def test_the_plan_tells_how_runs_share_jobs_and_jobs_arrays(two_heads: list[Head], start: Start) -> None:
    arms = '["method=kd","method=combined hydra.launcher.mem_gb=5"]'
    command = ("seed=0,1,2,3,4,5,6", *TINY, f"hydra.sweeper.arms={arms}", "sweep.pack=2", "harness.plan=true")
    head = start(*command, runs=two_heads[0].runs)
    assert head.ends() == 0, head.said
    assert "arrays: 8 students (2 arrays; 4 jobs of up to 2 runs; 4 with mem_gb=2; 4 with mem_gb=5)" in head.said, (
        head.said
    )


def test_a_finished_sweep_runs_nothing_again(two_heads: list[Head], start: Start) -> None:
    began = time.time()
    head = start("method=all", "seed=0,1,2", *TINY, runs=two_heads[0].runs)
    assert head.ends() == 0, head.said
    assert "15 runs: 15 done before, 0 to run, 0 teachers to train first" in head.said
    assert "15 of 15 runs done" in head.said
    assert all(event["time"] < began for run in directories(head.runs) for event in events(run))


def reattach_command(head: Head) -> tuple[str, ...]:
    """The arguments of the line that the head gave for coming back to it."""
    found = re.search(r"^to reattach: python -m harness (.*)$", head.said, re.MULTILINE)
    assert found, head.said
    return tuple(argument for argument in shlex.split(found[1]) if not argument.startswith("runs="))


def test_a_head_that_goes_away_is_replaced_by_the_line_that_it_gave(start: Start, busy_lab: Lab) -> None:
    first = start("method=kd,ensemble_kd", "seed=0", *TINY, "train.epochs=25")
    first.until(lambda: list(first.runs.glob("teachers/*/claim.json")), "a teacher that trains")
    first.send(signal.SIGINT)
    assert first.ends() == 130, first.said
    assert "2 teachers stay with SLURM" in first.said
    assert "students are not submitted yet" in first.said
    second = Head(*reattach_command(first), runs=first.runs, environment=busy_lab.environment)
    second.until(lambda: "students: 2 submitted" in second.said, "students submitted")
    second.process.kill()  # the connection is lost
    second.ends()
    third = Head(*reattach_command(first), runs=first.runs, environment=busy_lab.environment)
    assert third.ends() == 0, third.said
    assert "2 of 2 runs done" in third.said
    assert all(has_run_once(run) for run in directories(third.runs))
    assert len(directories(third.runs)) == 4


def test_a_detached_sweep_goes_on_alone(start: Start, busy_lab: Lab) -> None:
    head = start("method=kd", "seed=0,1", *TINY, "sweep.detach=true")
    assert head.ends() == 0, head.said
    assert not list(head.runs.glob("*-kd-*/record.json")), "it waited for the students"
    found = re.search(r"submitted 2 teachers and 2 students: jobs (\d+), (\d+)", head.said)
    assert found, head.said
    teachers, students = sorted(found.groups(), key=int)
    assert f"afterany:{teachers}_" in busy_lab.run("scontrol", "show", "job", students)
    assert "python -m harness.status" in head.said
    again = Head(*reattach_command(head), runs=head.runs, environment=busy_lab.environment)
    assert again.ends() == 0, again.said
    assert "2 of 2 runs done" in again.said
    assert len(directories(again.runs)) == 4
    assert all(has_run_once(run) for run in directories(again.runs))


def test_a_job_that_dies_with_no_head_there_is_explained(start: Start, busy_lab: Lab) -> None:
    head = start("method=exits", "seed=0", *TINY, "sweep.detach=true", plugin=True)
    assert head.ends(60) == 0, head.said
    run = one(head.runs, "*-exits-*")
    job = job_of(run)
    busy_lab.wait_until(lambda: job not in busy_lab.run("squeue", "-h", "--array", "--format=%i"), "end", timeout=120)
    assert not (run / "record.json").exists()
    command = [sys.executable, "-m", "harness.status", str(head.runs)]

    def told() -> str:
        done = subprocess.run(command, cwd=ROOT, env=busy_lab.environment, capture_output=True, text=True, check=True)
        return done.stdout

    head.until(
        lambda: re.search(rf"exits.* failed .*job {job} on n[12] died: SLURM says FAILED \(exit 3:0\)", told()), ""
    )
    error = records(head.runs)[run.name]["error"]
    assert (error["type"], error["slurm_state"]) == ("JobDied", "FAILED")
    assert Path(error["log"]).exists()


def test_fail_fast_cancels_the_rest(start: Start, busy_lab: Lab) -> None:
    head = start("method=raises,slow", "seed=0", "train.epochs=500", "fail_fast=true", plugin=True)
    assert head.ends() == 1, head.said
    assert "fail_fast: cancelling 1 runs" in head.said
    assert "the sky is falling" in head.said
    jobs = [job_of(run) for run in head.runs.glob("*-slow-*")]
    busy_lab.wait_until(lambda: not busy_lab.run("squeue", "-h", "-j", jobs[0]).strip(), "end of the job")
    assert busy_lab.run("sacct", "-X", "-n", "-P", "-j", jobs[0], "-o", "State").startswith("CANCELLED")


def test_a_controller_that_goes_away_is_waited_for(slurm_installed: None, tmp_path: Path) -> None:
    status = [sys.executable, "-m", "harness.status", str(tmp_path)]
    with Lab(nodes=1) as lab:
        launcher = ("-m", "hydra/launcher=cpu", "hydra.launcher.cpus_per_task=1", "sweep.poll_s=1")
        command = (*launcher, "method=kd", "seed=0", *TINY, "teachers.size=1", "train.epochs=25")
        head = Head(*command, runs=tmp_path, environment=lab.environment)
        head.until(lambda: list(tmp_path.glob("teachers/*/claim.json")), "a teacher that trains")
        lab.stop_controller()
        teacher = one(tmp_path, "teachers/*-m0-*")
        head.until(lambda: (teacher / "record.json").exists(), "the teacher's record")
        head.until(lambda: "SLURM does not answer" in head.said, "what the head says")
        shown = subprocess.run(status, cwd=ROOT, env=lab.environment, capture_output=True, text=True, check=True)
        assert shown.stdout.startswith("1 runs and teachers: 1 done"), shown
        assert head.process.poll() is None
        lab.start_controller()
        assert head.ends() == 0, head.said
        assert "1 of 1 runs done" in head.said
        assert all(has_run_once(run) for run in directories(tmp_path))


def test_a_full_queue_gets_the_rest_as_room_comes(slurm_installed: None, tmp_path: Path) -> None:
    settings = {"AccountingStorageEnforce": "associations,limits"}
    with Lab(nodes=1, settings=settings) as lab:
        lab.run("sacctmgr", "-i", "modify", "user", user_name(), "set", "MaxSubmitJobs=2")
        # As from inside a job, which was granted what its own jobs must not inherit.
        inside = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_CPU": "1", "SLURM_NTASKS": "9"}
        command = (
            "-m",
            "hydra/launcher=cpu",
            "method=supervised",
            "seed=0,1,2",
            *TINY,
            "hydra.launcher.cpus_per_task=1",
        )
        head = Head(*command, runs=tmp_path, environment={**lab.environment, **inside})
        head.until(lambda: "students: 2 submitted\n" in head.said, "two of three submitted")
        assert "the queue takes no more: 1 of them wait here until it does" in head.said
        assert head.ends() == 0, head.said
        assert "3 of 3 runs done" in head.said
        assert all(has_run_once(run) for run in directories(tmp_path))
        # A job that is ending counts until it has left the queue.
        lab.wait_until(lambda: not lab.run("squeue", "-h").strip(), "an empty queue")
        detached = Head(*command, "sweep.detach=true", "force=true", runs=tmp_path, environment=lab.environment)
        assert detached.ends() == 2, detached.said
        assert "error: the queue has no room for 1 more: 0 teachers and 2 students are submitted" in detached.said
        (kept,) = [run for run in directories(tmp_path) if len(events(run)) == 2 and (run / "record.json").exists()]
        assert records(tmp_path)[kept.name]["status"] == "done", "what was not submitted keeps its result"


def test_a_refused_submission_loses_no_result(two_heads: list[Head], start: Start) -> None:
    before = {run: (run / "record.json").read_bytes() for run in directories(two_heads[0].runs)}
    command = ("method=all", "seed=0,1,2", *TINY, "force=true", "hydra.launcher.partition=nowhere")
    head = start(*command, runs=two_heads[0].runs)
    assert head.ends() == 2, head.said
    assert "error: SLURM refused the jobs" in head.said
    assert {run: (run / "record.json").read_bytes() for run in before} == before
    assert not list(head.runs.glob("*/*.aside"))


def test_a_preset_and_a_clusters_own_file(start: Start, busy_lab: Lab, tmp_path: Path) -> None:
    own = tmp_path / "clusters" / "hydra" / "launcher" / "ours.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "defaults: [cpu, _self_]\npartition: urgent\ncpus_per_task: 1\n"
        "additional_parameters: {export: NONE, mail-type: null}\n"
    )
    container = tmp_path / "container"
    container.write_text('#!/bin/sh\ntouch "$0.began"\nexec "$@"\n')
    container.chmod(0o755)
    python = f"+hydra.launcher.python='{container} {sys.executable}'"
    command = ("-m", "method=supervised", "seed=0", *TINY, "hydra/launcher=ours", python)
    head = Head(
        "--config-dir",
        str(tmp_path / "clusters"),
        *command,
        runs=tmp_path / "runs",
        environment=busy_lab.environment,
    )
    assert head.ends() == 0, head.said
    job = job_of(one(tmp_path / "runs", "*-supervised-*"))
    told = busy_lab.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "Partition,NCPUS,ReqMem").strip()
    assert told == "urgent|1|8G"
    assert (tmp_path / "container.began").exists(), "Python was started as the command says"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("hydra.launcher.partition=nowhere",), "SLURM refused the jobs"),
        (("hydra/launcher=basic", "sweep.detach=true"), "sweep.detach=true needs SLURM"),
    ],
)
def test_what_cannot_be_submitted_is_one_clear_line(
    busy_lab: Lab, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    launcher = () if "hydra/launcher=basic" in options else ("hydra/launcher=submitit_slurm",)
    arguments = ("-m", "method=supervised", "seed=0", *launcher, *options)
    head = Head(*arguments, runs=tmp_path / "runs", environment=busy_lab.environment)
    assert head.ends() == 2, head.said
    (line,) = [line for line in head.said.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in head.said
