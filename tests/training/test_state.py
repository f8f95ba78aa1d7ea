"""What a training goes on from, whatever device it was saved on."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from harness.training import networks
from harness.training.data import Dataset, Split
from harness.training.state import Training
from harness.training.trainer import Trainer
from tests.running import make_trainer


def make_data() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (48, 3, 8, 8), dtype=torch.uint8, generator=draw)
    split = Split(images, torch.randint(3, (48,), generator=draw))
    return Dataset(3, (0.5,) * 3, (0.2,) * 3, split, split, split)


def start(channels_last: bool, optimiser: str) -> tuple[Trainer, Training]:
    trainer = make_trainer(make_data(), channels_last=channels_last, optimiser=optimiser, lr=0.02)
    network = networks.build("preresnet8", 3, (0.5,) * 3, (0.2,) * 3, torch.Generator().manual_seed(1), 8)
    training = trainer.start(network)
    training.student.train()
    return trainer, training


def take(trainer: Trainer, training: Training, steps: int) -> list[float]:
    """The losses of the next steps of the first epoch."""
    batches = trainer.batches.epoch(0, training.step)
    return [float(trainer.take_step(training, next(batches))["loss"].detach()) for _ in range(steps)]


def to_disk_and_back(training: Training) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(training.state(), buffer)
    buffer.seek(0)
    return torch.load(buffer, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_goes_on_in_another_memory_format(first: bool, optimiser: str) -> None:
    """As one that a GPU has left does on a CPU, where weights lie otherwise: momentum has to move with them."""
    trainer, training = start(first, optimiser)
    take(trainer, training, 3)
    state = to_disk_and_back(training)
    expected = take(trainer, training, 3)

    trainer, training = start(not first, optimiser)
    training.restore(state)
    for parameter, known in training.optimiser.state.items():
        assert all(v.stride() == parameter.stride() for v in known.values() if v.shape == parameter.shape)
    assert take(trainer, training, 3) == pytest.approx(expected, rel=1e-4)
