"""A run on two devices of this machine: the run on one, whole or in pieces, with one claim, one record and one fate."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from harness import verify
from harness.app import run as command
from harness.config import ConfigError
from harness.run.crew import Crew, RankLost, open_store, start_crew
from harness.run.learner import check_shared
from harness.run.run import execute
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted
from harness.store.identity import run_directory
from tests.heads import PATIENCE_S, Head, one, wait_for
from tests.running import configure, run

pytestmark = pytest.mark.slow
TWO = (
    "train.epochs=6",
    "train.warmup_epochs=1",
    "train.steps_per_epoch=5",
    "train.checkpoint_every=1",
    "teachers.size=2",
)
MANY = ("method=combined", "seed=0", "teachers.cache=views", *TWO)


def weights(place: Path) -> dict[str, np.ndarray]:
    return load_file(place / "student.safetensors")


def apart(one: Path, other: Path) -> float:
    mine, theirs = weights(one), weights(other)
    return max(float(abs(mine[name].astype(float) - theirs[name]).max()) for name in mine)


def record(place: Path) -> dict[str, Any]:
    return json.loads((place / "record.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("alone")
    assert command([*MANY, f"runs={runs}"]) == 0
    return runs


@pytest.fixture(scope="module")
def taught(alone: Path) -> tuple[str, ...]:
    """The same teachers for all, so that what is compared is one training's."""
    return (*MANY, "devices=2", f"bank={alone / 'teachers'}")


def test_a_run_on_two_is_the_run_on_one(alone: Path, tmp_path: Path) -> None:
    head = Head(*MANY, "devices=2", runs=tmp_path)
    assert head.ends() == 0, head.said
    for pattern in ("teachers/*-m0-*", "*-combined-*"):
        mine, other = one(alone, pattern), one(tmp_path, pattern)
        assert apart(mine, other) < 1e-3  # in single precision, from step to step
        assert [record(place)["provenance"]["devices"] for place in (mine, other)] == [1, 2]
    assert one(alone, "*-combined-*").name == one(tmp_path, "*-combined-*").name
    assert not [*tmp_path.rglob("checkpoint.pt"), *tmp_path.rglob("rank*.log")]


def test_two_evaluate_what_was_trained_before_as_one_does(alone: Path, tmp_path: Path) -> None:
    found = []
    for devices in (1, 2):
        runs = tmp_path / str(devices)
        shutil.copytree(alone, runs, ignore=shutil.ignore_patterns(".head*"))
        assert command([*MANY, f"devices={devices}", "evaluate.shift=true", f"runs={runs}"]) == 0
        found.append(record(one(runs, "*-combined-*"))["shift"])
        assert "only evaluated" in (one(runs, "*-combined-*") / "run.log").read_text()
    assert found[0] == found[1] is not None


def followers(head: Head) -> list[int]:
    children = Path(f"/proc/{head.process.pid}/task/{head.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"harness.run.follower" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def at_work(head: Head, epoch: int) -> Path:
    def found() -> list[Path]:
        return [place for place in head.runs.glob("*-combined-*") if (place / "checkpoint.pt").exists()]

    place = head.until(found, "a checkpoint")[0]
    head.until(lambda: len((place / "history.jsonl").read_text().splitlines()) >= epoch, f"epoch {epoch}")
    return place


@pytest.mark.parametrize("which", ["0", "1", "stop", "hurry", "still"])
def test_all_end_together_and_the_same_command_goes_on(
    which: str, taught: tuple[str, ...], alone: Path, tmp_path: Path
) -> None:
    """Whoever is killed, asked to stop (once, or twice), or stands still; with another number of devices, too."""
    # Longer than a busy machine needs to start a rank, but for who stands still, which is waited out.
    environment = os.environ | {"HARNESS_RANKS_TIMEOUT_S": "30" if which == "still" else "300"}
    head = Head(*taught, "train.epochs=6", runs=tmp_path, environment=environment)
    place = at_work(head, 2)
    (follower,) = followers(head)
    if which == "stop":
        head.send(signal.SIGTERM)
    elif which == "hurry":
        for _ in range(2):
            head.send(signal.SIGINT)
            time.sleep(0.05)  # two signals that wait are one
    else:
        numbers = {
            "0": (head.process.pid, signal.SIGKILL),
            "1": (follower, signal.SIGKILL),
            "still": (follower, signal.SIGSTOP),
        }
        os.kill(*numbers[which])
    status = head.ends()
    assert status == {"0": -signal.SIGKILL, "stop": 130, "hurry": 130}.get(which, 1), head.said
    if which in ("1", "still"):
        error = record(place)["error"]
        assert error["type"] == "RankLost", error
        assert re.match(rf"rank 1 \(process {follower} on \S+\) (has ended \(SIGKILL\)|is silent)", error["message"])
    wait_for(lambda: not Path(f"/proc/{follower}").exists(), "the follower's end")
    assert (place / "checkpoint.pt").exists()
    if which == "0":
        again = Head(*taught, runs=tmp_path)
        assert again.ends() == 0, again.said
    else:
        assert command([*taught, "devices=1", f"runs={tmp_path}"]) == 0
    assert "resumed at step" in (place / "run.log").read_text()
    assert apart(place, one(alone, "*-combined-*")) < 1e-3


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a disk that is nearly full: this process can write no more than so many bytes to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_ranks_that_wait_for_one_that_failed_end_with_it(tmp_path: Path) -> None:
    """Also where rank 0 did not start them, as on SLURM, and cannot kill them: they are told."""
    config, store = configure(tmp_path, "supervised"), open_store("127.0.0.1", 2)
    command = [sys.executable, "-m", "harness.run.follower", "127.0.0.1", str(store.port), "1", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as follower:
        with files_no_larger_than(50_000), pytest.raises(OSError, match="File too large"), Crew(2, store) as crew:
            execute(config, Console(), crew=crew)
        _, said = follower.communicate(timeout=PATIENCE_S)
    assert (follower.returncode, said) == (1, "rank 1 lost rank 0, and ends\n")
    assert record(run_directory(config))["error"]["message"].endswith("File too large")


@pytest.mark.parametrize("given", ["soon", "nan", "0", "1e300"])
def test_a_patience_that_is_none_is_refused(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RANKS_TIMEOUT_S", given)
    with pytest.raises(ConfigError, match=f"HARNESS_RANKS_TIMEOUT_S={given} is no number of seconds"):
        configure(tmp_path, devices=2)
    configure(tmp_path, devices=1)


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size=50 does not divide among 4 devices"):
        configure(tmp_path, devices=4)
    with pytest.raises(ConfigError, match=r"teachers\.train\.batch_size=25 does not divide among 2 devices"):
        configure(tmp_path, devices=2, teachers__train={"batch_size": 25})
    with pytest.raises(ConfigError, match="is one GPU, devices=2 are several"):
        configure(tmp_path, devices=2, device="cuda:1")
    with pytest.raises(
        ConfigError, match=r"its layer network\.\S+ \S*draws random numbers, on 2 devices others than on one"
    ):
        run(tmp_path, "supervised", devices=2, model="convnext_tiny")
    for method in ("kd_gaussian", "ae_kd"):
        with pytest.raises(ConfigError, match=f"method={method} cannot share a batch among 2 devices: give it one"):
            run(tmp_path, method, devices=2)


def test_a_run_of_so_many_tasks_is_verified_on_as_many_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its configuration does not say how many: the tasks of its job did."""
    config = configure(tmp_path, "supervised", train__precision="bfloat16")
    with start_crew(2, tmp_path) as crew:
        execute(config, Console(), crew=crew)
    place = run_directory(config)
    assert record(place)["provenance"]["arithmetic"][0].startswith("2 x cpu")
    assert verify.main([str(place), "--train"]) == 0
    assert "trained again to the same files" in capsys.readouterr().out


def test_a_rank_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RANKS_TIMEOUT_S", "0.3")
    crew = Crew(2, open_store("127.0.0.1", 2))
    with pytest.raises(RankLost, match="rank 1 is silent"):
        crew.call({}, torch.device("cpu"), lambda: False)
    with pytest.raises(Interrupted):
        crew.call({}, torch.device("cpu"), lambda: True)


class Idle(nn.Module):
    """A layer with a parameter that its answers do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class OwnNorm(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize(
    "layer, message",
    [
        (Idle(), "its parameter 1.spare takes no part in its answers: 2 devices would wait for it"),
        (OwnNorm(2), r"1 \(OwnNorm\) is no batch norm that several devices can share"),
    ],
)
def test_what_ranks_cannot_share_is_refused_before_anything_is_trained(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_shared(nn.Sequential(nn.Conv2d(1, 2, 1), layer), torch.rand(2, 1, 2, 2), 2)


def test_a_run_of_one_process_has_nobody_to_send_home() -> None:
    with Crew(1) as crew:
        assert crew.count == 1
