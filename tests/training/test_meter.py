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
from methods.baselines.supervised import Supervised
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
