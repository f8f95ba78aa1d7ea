"""A training at work, without the run around it: steps whose losses can be looked at."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import methods
from harness import streams
from harness.config.options import DATA, Train
from harness.training import arithmetic, networks
from harness.training.data import Dataset, Split, load
from harness.training.data.batches import Batch
from harness.training.data.changes import Change
from harness.training.state import Training
from harness.training.trainer import Trainer
from methods.method import Method, Teachers

RECIPE = Train(epochs=100, batch_size=20, warmup_epochs=0)
Build = Callable[[int | str], nn.Module]  # a network on the CPU, from a seed


def with_labels(name: str) -> Method:
    """A method whose loss is half the labels': beside what freshly initialised teachers say, differences would not show."""
    return methods.load(name)(**({} if name in methods.BASELINES else {"alpha": 0.5, "temperature": 1.0}))


@dataclass
class Work:
    """A trainer and its training."""

    trainer: Trainer
    training: Training

    def batches(self) -> Iterator[Batch]:
        """From the training's step on, without an end."""
        steps = self.trainer.steps_per_epoch
        epoch, skip = divmod(self.training.step, steps)
        while True:
            yield from self.trainer.batches.epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def step(self, batch: Batch) -> Tensor:
        """Take a step; returns its loss, on the device."""
        with arithmetic.of_steps(self.trainer.recipe["precision"]):
            return self.trainer.take_step(self.training, batch)["loss"].detach()

    def losses(self, count: int) -> list[float]:
        """Of the next steps."""
        batches = self.batches()
        return [float(self.step(next(batches))) for _ in range(count)]

    def state(self) -> dict[str, Any]:
        """Of the training, as a checkpoint brings it back."""
        buffer = io.BytesIO()
        torch.save(self.training.state(), buffer)
        return torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu", weights_only=True)


def digits(device: torch.device) -> Dataset:
    return load(asdict(DATA["digits"])).to(device)


def noise(device: torch.device, size: int, count: int, classes: int = 100) -> Dataset:
    """Random images [count, 3, size, size] and labels."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    split = Split(images, torch.randint(classes, (count,), generator=draw))
    return Dataset(classes, (0.5,) * 3, (0.25,) * 3, split, split, split).to(device)


def prepare(
    data: Dataset,
    method: Method,
    model: str = "preresnet_tiny",
    members: int = 4,
    build: Build | None = None,
    teachers: Teachers | None = None,
    padding: int = 1,
    changes: Sequence[Change] = (),
    **recipe: Any,
) -> Work:
    """A training at step 0, from freshly initialised teachers unless some are given.

    recipe: changes of RECIPE; build: makes all networks, in the place of those of `model`.
    """

    def network(seed: int | str) -> nn.Module:
        if build is not None:
            return build(seed).to(data.train.images.device)
        made = networks.build(model, data.classes, data.mean, data.sd, streams.generator(seed, "init"), data.size)
        return made.to(data.train.images.device)

    count = members if method.teachers is None else method.teachers
    teachers = teachers or Teachers([network(f"teacher/0/{m}") for m in range(count)])
    options = asdict(RECIPE) | recipe
    trainer = Trainer(method, data, teachers, options, padding=padding, flip=False, seed=0, changes=changes)
    training = trainer.start(network(0))
    training.student.train()
    return Work(trainer, training)
