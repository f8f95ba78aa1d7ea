"""A few steps of a method on noise: what they come to, and what they asked of a pretended GPU."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from harness import streams
from harness.config.options import Data, Train
from harness.run.views import CachedTeachers
from harness.training import networks
from harness.training.data import Dataset, Split
from harness.training.data.augmentation import count_views
from harness.training.data.changes import image_changes
from harness.training.inference import predict
from harness.training.state import Training
from harness.training.trainer import Trainer
from methods.method import Method, Teachers
from tests.pretended_gpu import Event, PretendedGPU, pretending

IMAGES, SIZE, CHANNELS, CLASSES = 32, 8, 3, 5
PADDING = 1
STEPS = 3  # an epoch


def make_noise() -> Dataset:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, CHANNELS, SIZE, SIZE), generator=stream, dtype=torch.uint8)
    split = Split(images, torch.randint(CLASSES, (IMAGES,), generator=stream))
    return Dataset(CLASSES, (0.5,) * CHANNELS, (0.25,) * CHANNELS, split, split, split)


@dataclass
class Trial:
    """A method with its options, the network by name or as a function of a seed, and a recipe's and data's options."""

    method: Method
    network: str | Callable[[int], nn.Module] = "preresnet_tiny"
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    views: bool = False  # whether teachers know their answers for every view
    members: int = 3
    resumed: bool = False  # whether every epoch goes on from the state that the one before it saved

    def run(self, device: str, gpu: PretendedGPU | None = None) -> Outcome:
        """Train for every epoch of the recipe (one, unless told), then deploy; what is asked is that of `gpu`."""
        marks: list[int] = []  # how much had been asked when a step began

        def mark() -> bool:
            marks.append(len(gpu.events) if gpu else 0)
            return False

        trainer, training = self.begin(device, mark)
        first: list[Event] = []
        steps: list[list[Event]] = []
        for epoch in range(trainer.epochs):
            if self.resumed and epoch:
                state = written_and_read(training.state())
                trainer, training = self.begin(device, mark)
                training.restore(state)
            marks.clear()
            means = trainer.run_epoch(training, epoch)
            trainer.average_epoch(training, epoch)
            found = [gpu.events[start:end] for start, end in pairwise(marks)] if gpu else []
            if gpu and (self.resumed or not epoch):
                first, *found = found
            steps += found
        logits = predict(trainer.deploy(training.judged), trainer.data.validation)
        graphs = trainer.capture.describe() if trainer.capture else {}
        return Outcome(means["loss"], logits.cpu(), first, steps, graphs)

    def begin(self, device: str, stop: Callable[[], bool]) -> tuple[Trainer, Training]:
        data = make_noise().to(device)
        short = Train(epochs=1, batch_size=4, lr=0.05, warmup_epochs=0, steps_per_epoch=STEPS, capture=False)
        trainer = Trainer(
            *(self.method, data, self.teachers(device), asdict(short) | self.recipe, PADDING),
            flip=True,
            seed=0,
            changes=image_changes(asdict(Data()) | self.data, data),
            stop=stop,
        )
        training = trainer.start(self.build(0).to(device))
        training.student.train()
        return trainer, training

    def teachers(self, device: str) -> Teachers:
        count = self.members if self.method.teachers is None else self.method.teachers
        members = [self.build(1 + m).to(device) for m in range(count)]
        if not self.views:
            return Teachers(members)
        stream = torch.Generator().manual_seed(0)
        shape = (IMAGES * count_views(PADDING, True), CLASSES)
        return CachedTeachers(members, [torch.randn(shape, generator=stream).half().to(device) for _ in members])

    def build(self, seed: int) -> nn.Module:
        if not isinstance(self.network, str):
            return self.network(seed)
        data = make_noise()
        stream = streams.generator(seed, "init")
        return networks.build(self.network, CLASSES, data.mean, data.sd, stream, SIZE)


@dataclass
class Outcome:
    """The last epoch's mean loss, the deployed network's logits [N, K], and what was asked in every step.

    A step is all from its beginning to that of the next, whose batch is made in it. An epoch's last one is left out: the
    loss is looked at there. `first` is the first step of the last training alone. `graphs` is how steps were captured.
    """

    loss: float
    logits: Tensor
    first: list[Event]
    steps: list[list[Event]]
    graphs: dict[str, Any]


def written_and_read(state: dict[str, Any]) -> dict[str, Any]:
    """A training's state as its checkpoint gives it back."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu", weights_only=True)


def pretend(trial: Trial) -> Outcome:
    """A trial on a pretended GPU."""
    with pretending() as gpu:
        return trial.run("cuda", gpu)
