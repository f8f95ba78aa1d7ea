"""Sweeps without a cluster: one after the other in the head's process, or a pool of processes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.record import read_record, write_record
from harness.sweep.preview import FILES_OF_A_JOB, FILES_OF_A_RUN
from tests.heads import ROOT, Head, events, one, records

pytestmark = pytest.mark.slow
FEW_EPOCHS = ("train.epochs=2", "train.warmup_epochs=1", "threads=1")
POOL = ("hydra/launcher=submitit_local", "sweep.workers=2")


def with_gpus(names: str) -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": names}


@pytest.mark.parametrize("launcher", [(), POOL, ("sweep.pack=2",)], ids=["basic", "pool", "pack"])
def test_a_failed_run_takes_no_other_with_it(tmp_path: Path, launcher: tuple[str, ...]) -> None:
    """Its words are from the environment that Hydra's `hydra.job.env_set` gives a run."""
    own = "+hydra.job.env_set.TROUBLE=the sea is rising"
    command = ("-m", "method=raises,supervised", "seed=0,1", *FEW_EPOCHS, *launcher, own)
    head = Head(*command, runs=tmp_path, plugin=True)
    assert head.ends() == 1, head.said
    assert re.search(r"^│ supervised ", head.said, re.MULTILINE)
    assert "2 of 4 runs done" in head.said
    assert len(re.findall(r"^missing .*-raises-.*: failed: the sea is rising; log ", head.said, re.MULTILINE)) == 2
    found = records(tmp_path)
    failed = found[one(tmp_path, "*-raises-s0-*").name]
    assert failed["status"] == "failed"
    assert "ArithmeticError" in failed["error"]["traceback"]
    assert Path(failed["error"]["log"]).exists()
    if not launcher:
        again = Head(*command, runs=tmp_path, plugin=True)
        assert again.ends() == 1, again.said
        assert "4 runs: 2 done before, 2 to run" in again.said


def test_a_lost_gpu_takes_no_other_run_with_it(tmp_path: Path) -> None:
    """After a failed assertion in a kernel the process can do nothing more on its GPU."""
    head = Head("-m", "method=asserts,supervised", "seed=0,1", *FEW_EPOCHS, runs=tmp_path, plugin=True)
    assert head.ends() == 1, head.said
    assert "2 of 4 runs done" in head.said
    assert head.said.count("what is left runs in fresh processes, one at a time") == 1
    for seed in (0, 1):
        assert (
            f"preresnet_tiny-asserts-s{seed}: failed: CUDA error: device-side assert triggered; CUDA_LAUNCH"
            in head.said
            or "GpuFault: CUDA error: device-side assert triggered; CUDA_LAUNCH_BLOCKING=1" in head.said
        )
        assert len(events(one(tmp_path, f"*-supervised-s{seed}-*"), "ended")) == 1, "in a process of its own"
    assert not events(one(tmp_path, "*-asserts-s0-*")), "what had failed is not tried again"


def test_the_pool_survives_what_ends_a_process_and_gives_each_run_a_gpu(tmp_path: Path) -> None:
    command = ("-m", "method=exits,slow", "seed=0,1", *FEW_EPOCHS, "hydra/launcher=submitit_local")
    head = Head(*command, runs=tmp_path, plugin=True, environment=with_gpus("5,7"))
    assert head.ends() == 1, head.said
    found = records(tmp_path)
    for seed in (0, 1):
        error = found[one(tmp_path, f"*-exits-s{seed}-*").name]["error"]
        assert error["message"].startswith("its process ended with exit code 3")
        assert Path(error["log"]).name == "job.log"
        assert found[one(tmp_path, f"*-slow-s{seed}-*").name]["status"] == "done"
    spans = []
    for seed in (0, 1):
        began, ended = events(one(tmp_path, f"*-slow-s{seed}-*"), "started", "ended")
        spans.append((began["time"], ended["time"], began["gpus"]))
    assert {gpus for *_, gpus in spans} <= {"5", "7"}
    (first, second) = sorted(spans)
    assert second[0] > first[1] or first[2] != second[2]


def test_a_pack_shares_a_gpu_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    """With Hydra's basic launcher, too, runs are processes then."""
    head = Head(
        "-m",
        "method=slow",
        "seed=0,1,2",
        *FEW_EPOCHS,
        "sweep.pack=2",
        runs=tmp_path,
        plugin=True,
        environment=with_gpus("5"),
    )
    assert head.ends() == 0, head.said
    assert "memory: no record yet of digits-preresnet_tiny-slow; 2 at a time on one device, unchecked" in head.said
    spans = []
    for seed in (0, 1, 2):
        began, ended = events(one(tmp_path, f"*-slow-s{seed}-*"), "started", "ended")
        assert began["gpus"] == "5"
        spans.append((began["time"], ended["time"]))
    beside = [sum(a < d and c < b for c, d in spans) for a, b in spans]  # each is beside itself, too
    assert max(beside) >= 2
    assert spans[2][0] > min(spans[0][1], spans[1][1]), "never three at a time"


def test_a_pack_is_no_larger_than_memory(tmp_path: Path) -> None:
    """By what an earlier run took: here it says that it took a terabyte."""
    first = Head("-m", "method=supervised", "seed=0", *FEW_EPOCHS, runs=tmp_path)
    assert first.ends() == 0, first.said
    place = one(tmp_path, "*-supervised-s0-*")
    record = read_record(place)
    assert 50 << 20 < record["cost"]["peak_memory_bytes"] < 4 << 30
    record["cost"]["peak_memory_bytes"] = 1 << 40
    write_record(place, record)
    again = Head("-m", "method=supervised", "seed=0,1,2", *FEW_EPOCHS, "sweep.pack=2", runs=tmp_path)
    assert again.ends() == 0, again.said
    assert re.search(
        r"^memory: [\d.]+ GiB of host memory are free and a run takes up to 1024.00: 1 at a time",
        again.said,
        re.MULTILINE,
    )
    assert "1 at a time, not 2" in again.said
    first, second = (events(one(tmp_path, f"*-supervised-s{seed}-*"), "started", "ended") for seed in (1, 2))
    assert second[0]["time"] > first[1]["time"]
    files = [len(list(one(tmp_path, f"*-supervised-s{seed}-*").iterdir())) for seed in (0, 1)]
    assert files == [FILES_OF_A_RUN, FILES_OF_A_JOB], "as the plan says"


def test_a_preset_of_this_package_and_one_of_a_users_own_from_any_folder(tmp_path: Path) -> None:
    own = tmp_path / "clusters" / "hydra" / "launcher" / "ours.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [cpu, _self_]\npartition: a100\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def shown(*arguments: str) -> str:
        command = [sys.executable, "-m", "harness", *arguments, "--cfg", "hydra", "-p", "hydra.launcher"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "gpus_per_node: 1" in shown("hydra/launcher=preemptible")
    searched = f"hydra.searchpath=[pkg://slurm,file://{tmp_path}/clusters]"
    for way in ((searched,), ("--config-dir", str(tmp_path / "clusters"))):
        ours = shown("hydra/launcher=ours", *way)
        assert "partition: a100" in ours
        assert "cpus_per_task: 4" in ours, "inherited from a preset"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ('["method=kd","method=kd hydra.launcher.mem_gb=5"]', "two values of hydra.launcher.mem_gb"),
        ('["method=kd hydra.launcher.mme_gb=5"]', "Could not override 'hydra.launcher.mme_gb': Key 'mme_gb' not in"),
        (
            '["method=kd hydra/launcher=gpu"]',
            "hydra/launcher=gpu: of Hydra's options, hydra.sweeper's params and arms can",
        ),
        ('["method=kd study=\'a b"]', "hydra.sweeper.arms: method=kd study='a b: No closing quotation"),
    ],
)
def test_jobs_that_make_no_sense_are_one_clear_line(tmp_path: Path, arms: str, message: str) -> None:
    head = Head("-m", "seed=0", f"hydra.sweeper.arms={arms}", "hydra/launcher=cpu", "harness.plan=true", runs=tmp_path)
    assert head.ends() == 2, head.said
    (line,) = head.said.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("sweep.pack=2",), "device=cuda:3: 2 GPUs are visible here (CUDA_VISIBLE_DEVICES=5,7); use auto"),
        (("hydra/launcher=cpu", "harness.plan=true"), "device=cuda:3 on SLURM, which chooses the GPUs of a job: use"),
    ],
)
def test_a_gpu_that_no_process_would_see_is_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    command = ("-m", "method=supervised", "seed=0,1", "device=cuda:3", *options)
    head = Head(*command, runs=tmp_path, environment=with_gpus("5,7"))
    assert head.ends() == 2, head.said
    assert f"error: {message}" in head.said
    assert not list(tmp_path.glob("*-supervised-*"))


def test_ctrl_c_lets_started_runs_finish_and_says_how_to_come_back(tmp_path: Path) -> None:
    runs = tmp_path / "two words"
    command = ("-m", "method=slow", "seed=0,1,2", *FEW_EPOCHS, *POOL)
    head = Head(*command, runs=runs, plugin=True)
    head.until(lambda: len(list(runs.glob("*/claim.json"))) == 2, "two runs at work")
    head.send(signal.SIGINT)
    assert head.ends() == 130, head.said
    assert "2 students that have started finish, the others do not start" in head.said
    said = dict(re.findall(r"^to (watch|reattach): +python -m (.*)$", head.said, re.MULTILINE))
    assert shlex.split(said["watch"]) == ["harness.status", str(runs)]
    assert shlex.split(said["reattach"]) == ["harness", *command, f"runs={runs}"]
    again = Head(*command, runs=runs, plugin=True)
    assert again.ends() == 0, again.said
    assert "3 of 3 runs done" in again.said
    assert f"python -m analysis {shlex.quote(str(runs))}" in again.said
    assert all(len(events(run, "started")) == 1 for run in runs.glob("*-slow-*"))


def test_a_basic_sweep_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    command = ("-m", "method=slow", "seed=0,1", *FEW_EPOCHS)
    head = Head(*command, runs=tmp_path, plugin=True)
    head.until(lambda: list(tmp_path.glob("*-s0-*/claim.json")), "the first run at work")
    head.send(signal.SIGTERM)
    assert head.ends() == 130, head.said
    assert "the same command goes on from there" in head.said
    again = Head(*command, runs=tmp_path, plugin=True)
    assert again.ends() == 0, again.said
    assert "2 of 2 runs done" in again.said
