"""Whole runs on digits: what they leave, that they are not repeated, and that a kill does not change them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness.config.options import Data
from harness.store.record import read_record
from harness.training import networks
from harness.training.data import load
from harness.training.inference import predict

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["train.epochs=6", "train.warmup_epochs=1", "teachers.size=3", "threads=1"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


def start(runs: Path, bank: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "harness", *arguments, *QUICK, f"runs={runs}", f"bank={bank}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )


def run(runs: Path, bank: Path, *arguments: str, status: int = 0) -> str:
    process = start(runs, bank, *arguments)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said
    return said


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, bank):
    """Folder and output of the main job in small: every variant, two seeds."""
    runs = tmp_path_factory.mktemp("sweep")
    return runs, run(runs, bank, "-m", "method=all", "seed=0,1")


def records(runs: Path) -> dict[tuple[str, int], dict]:
    found = [read_record(path) for path in sorted(runs.iterdir()) if (path / "record.json").exists()]
    return {(record["config"]["method"]["name"], record["config"]["seed"]): record for record in found}


def directory(runs: Path, start: str) -> Path:
    (found,) = [path for path in runs.iterdir() if path.name.startswith(start)]
    return found


def test_every_variant_leaves_a_whole_record(sweep, bank):
    runs, said = sweep
    found = records(runs)
    variants = ["kd", "ensemble_kd", "weight_averaging", "perturbation", "combined"]
    assert set(found) == {(name, seed) for name in variants for seed in (0, 1)}
    assert "10 of 10 runs done" in said and "cost" in said
    for (name, seed), record in found.items():
        assert record["status"] == "done"
        assert set(record["metrics"]) == {"student", "teacher", "ensemble"}
        assert 0 <= record["metrics"]["student"]["test"]["ece"] <= 1
        assert record["cost"]["parameters"] == 19714 and record["cost"]["flops"] > 0
        place = directory(runs, f"digits-preresnet_tiny-{name}-s{seed}-")
        assert place.name.endswith(record["hash"])
        history = [json.loads(row) for row in (place / "history.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in history] == list(range(1, 7))
        assert not (place / "checkpoint.pt").exists() and not (place / "claim.json").exists()
    assert len(list(bank.glob("*/record.json"))) == 3
    # Paired runs share teachers and data.
    assert len({tuple(record["provenance"]["teachers"]) for record in found.values()}) == 1
    assert len({record["provenance"]["data"] for record in found.values()}) == 1


def test_a_second_call_trains_nothing(sweep, bank):
    runs, _ = sweep
    before = {path: path.stat().st_mtime_ns for path in [*runs.rglob("*"), *bank.rglob("*")] if path.is_file()}
    said = run(runs, bank, "-m", "method=all", "seed=0,1")
    assert "10 runs: 10 done before, 0 to run, 0 teachers" in said
    after = {path: path.stat().st_mtime_ns for path in [*runs.rglob("*"), *bank.rglob("*")] if path.is_file()}
    assert after == before


def test_the_deployed_student_is_a_plain_network(sweep):
    runs, _ = sweep
    digits = load(vars(Data()))
    network = networks.build("preresnet_tiny", 10, digits.mean, digits.sd)
    place = directory(runs, "digits-preresnet_tiny-combined-s0-")
    network.load_state_dict(load_file(place / "student.safetensors"))
    logits = predict(network.eval(), digits.test)
    record = read_record(place)
    accuracy = (logits.argmax(1) == digits.test.labels).double().mean().item()
    assert accuracy == pytest.approx(record["metrics"]["student"]["test"]["acc"], abs=1e-12)
    stored = np.load(place / "predictions.npz")
    shifted = logits - logits.amax(1, keepdim=True)
    assert np.abs(stored["test_logits"] - shifted.numpy()).max() < 0.02
    assert (stored["test_labels"] == digits.test.labels.numpy()).all()


def same_weights(one: Path, other: Path) -> bool:
    states = [load_file(place / "student.safetensors") for place in (one, other)]
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def wait_for_epoch(place: Path, epoch: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        history = [path for path in place.glob("*/history.jsonl") if len(path.read_text().splitlines()) >= epoch]
        if history:
            return
        time.sleep(0.01)
    raise AssertionError(f"no run reached epoch {epoch}")


@pytest.mark.parametrize("name", ["kd", "combined"])
def test_kill_and_resume_ends_with_the_same_weights(sweep, bank, tmp_path, name):
    runs, _ = sweep
    arguments = (f"method={name}", "seed=1", "train.checkpoint_every=2")
    process = start(tmp_path, bank, *arguments)
    wait_for_epoch(tmp_path, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    place = directory(tmp_path, f"digits-preresnet_tiny-{name}-s1-")
    assert (place / "checkpoint.pt").exists() and not (place / "record.json").exists()
    run(tmp_path, bank, *arguments)
    record = read_record(place)
    assert record["status"] == "done" and record["provenance"]["attempts"] == 2
    undisturbed = directory(runs, f"digits-preresnet_tiny-{name}-s1-")
    assert same_weights(place, undisturbed)
    losses = [
        [json.loads(row)["loss"] for row in (p / "history.jsonl").read_text().splitlines()]
        for p in (place, undisturbed)
    ]
    assert losses[0] == losses[1]


def test_ctrl_c_stops_cleanly_in_mid_epoch_and_goes_on(sweep, bank, tmp_path):
    runs, _ = sweep
    process = start(tmp_path, bank, "method=combined", "seed=0", "train.checkpoint_every=100")
    wait_for_epoch(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    place = directory(tmp_path, "digits-preresnet_tiny-combined-s0-")
    assert read_record(place)["status"] == "interrupted"
    run(tmp_path, bank, "method=combined", "seed=0", "train.checkpoint_every=100")
    assert same_weights(place, directory(runs, "digits-preresnet_tiny-combined-s0-"))


def test_force_runs_again_and_a_damaged_record_is_set_aside(bank, tmp_path):
    run(tmp_path, bank, "method=kd", "seed=5")
    place = directory(tmp_path, "digits-preresnet_tiny-kd-s5-")
    first = (place / "record.json").stat().st_mtime_ns
    assert "already done" in run(tmp_path, bank, "method=kd", "seed=5")
    assert (place / "record.json").stat().st_mtime_ns == first
    run(tmp_path, bank, "method=kd", "seed=5", "force=true")
    assert (place / "record.json").stat().st_mtime_ns > first
    whole = (place / "record.json").read_text()
    (place / "record.json").write_text(whole[: len(whole) // 2])
    assert "is not valid JSON" in run(tmp_path, bank, "method=kd", "seed=5")
    (aside,) = place.glob("record.damaged-*.json")
    assert aside.read_text() == whole[: len(whole) // 2]
    assert read_record(place)["status"] == "done"


def test_a_failed_run_says_why_and_leaves_the_others_alone(bank, tmp_path):
    # A learning rate that no loss survives.
    said = run(tmp_path, bank, "-m", "method=kd,ensemble_kd", "seed=0", "train.lr=0.05,1e30", status=1)
    assert "2 of 4 runs done" in said or "diverged" in said
    statuses = sorted(read_record(p)["status"] for p in tmp_path.iterdir() if (p / "record.json").exists())
    assert statuses.count("done") == 2
