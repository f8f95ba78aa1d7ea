"""Speed and memory in a record are the training's own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.training.data import Split
from harness.training.inference import batch_for, predict
from harness.training.meter import Meter
from harness.training.networks.preresnet import PreResNet
from methods.baselines.supervised import Supervised
from tests.pretended_gpu import pretending
from tests.running import run

SLOW_S = 1.5


@pytest.mark.parametrize("epochs", [1, 3])
def test_speed_is_not_that_of_the_first_step(epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts a device and compiles; here it sleeps. Time spent is time spent, all the same."""
    real, calls = Supervised.loss, []

    def slow(self, *arguments):
        if not calls:
            time.sleep(SLOW_S)
        calls.append(None)
        return real(self, *arguments)

    monkeypatch.setattr(Supervised, "loss", slow)
    cost = run(tmp_path, "supervised", train__epochs=epochs)["cost"]
    assert cost["images_per_s"] > 3 * 50 / SLOW_S * 1.5
    assert cost["device_s"] > SLOW_S


class Allocator:
    """What CUDA says of its memory: bytes that are held now, and the most since it was asked to forget."""

    def __init__(self) -> None:
        self.held = self.most = 0

    def hold(self, count: int) -> None:
        """For a moment."""
        self.most = max(self.most, self.held + count)

    def forget(self, device: torch.device) -> None:
        self.most = self.held

    def answer(self, patch: pytest.MonkeyPatch) -> Allocator:
        patch.setattr(torch.cuda, "reset_peak_memory_stats", self.forget)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.most)
        patch.setattr(torch.cuda, "memory_allocated", lambda device: self.held)
        return self


def test_peak_memory_is_that_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the first one, where algorithms are tried, nor of the evaluation, whose batches are larger; a network
    holds a byte an image here.
    """
    real, rows = PreResNet.forward, []

    def forward(self: PreResNet, images: torch.Tensor) -> torch.Tensor:
        rows.append(len(images))
        allocator.hold(len(images) if len(rows) > 1 else 10_000)
        return real(self, images)

    monkeypatch.setattr(PreResNet, "forward", forward)
    with pretending(), monkeypatch.context() as patch:
        allocator = Allocator().answer(patch)
        record = run(tmp_path, "supervised", device="cuda", train__capture=False)
    assert record["cost"]["peak_memory_bytes"] == 50 < max(rows[1:])


def test_what_graphs_keep_between_replays_is_memory_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = Allocator().answer(monkeypatch)
    segments = [
        {"segment_pool_id": (0, 0), "total_size": 900, "allocated_size": 0},  # anybody's
        {"segment_pool_id": (0, 1), "total_size": 300, "allocated_size": 20},
    ]
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    meter = Meter(torch.device("cuda"))
    meter.begin(0)
    allocator.held = 100
    assert meter.peak_bytes() == 100 + 280
    allocator.hold(1000)
    assert meter.peak_bytes() == 1100, "while they are captured, what they will keep counts as held"


def test_an_epoch_of_one_step_has_a_speed() -> None:
    meter = Meter(torch.device("cpu"))
    meter.begin(4)
    meter.after(5, last=True)
    assert meter.steps_per_s(5) > 0
    assert meter.peak_bytes() == 0


class Hungry(nn.Module):
    """Takes so many images at a time."""

    def __init__(self, most: int):
        super().__init__()
        self.most, self.asked = most, []

    def forward(self, images):
        self.asked.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.flatten(1)[:, :2]


def test_evaluation_goes_on_in_smaller_batches(capsys: pytest.CaptureFixture[str]) -> None:
    split = Split(torch.randint(256, (70, 1, 2, 2), dtype=torch.uint8), torch.zeros(70, dtype=torch.long))
    network = Hungry(20)
    logits = predict(network, split, 64)
    assert torch.equal(logits, predict(Hungry(70), split))
    assert network.asked == [64, 32, 16, 16, 16, 16, 6]
    assert "memory: the GPU is too full to evaluate 64 images at a time, trying fewer" in capsys.readouterr().err
    with pytest.raises(torch.OutOfMemoryError):
        predict(Hungry(0), split, 2)


@pytest.mark.parametrize(("side", "expected"), [(8, 1000), (32, 97), (224, 16)])
def test_batches_of_evaluation_on_a_cpu(side: int, expected: int) -> None:
    assert batch_for(torch.empty(1, 3, side, side)) == expected
