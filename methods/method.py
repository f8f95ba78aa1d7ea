"""The interface that every variant implements, and the frozen teachers it is given.

Shape suffixes: B images a batch, C channels, H and W pixels, K classes, M teachers or student members.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Teachers:
    """The frozen teachers of one set, in evaluation mode.

    Calling it gives every member's logits, `answer` those of one; `member(m)` is one network, for gradients with respect
    to its input.
    """

    capturable = True  # whether all that they do, they do on the device: see Method.capturable

    def __init__(self, networks: Sequence[nn.Module]):
        self.networks = [network.eval().requires_grad_(False) for network in networks]

    def __len__(self) -> int:
        return len(self.networks)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [M, B, K] of images [B, C, H, W], in float32 at least, without a graph."""
        return torch.stack([self.answer(m, images) for m in range(len(self))])

    def answer(self, m: int, images: Tensor) -> Tensor:
        """Logits [B, K] of teacher m, in float32 at least, without a graph."""
        with torch.no_grad():
            return at_least_float32(self.networks[m](images))

    def expect(self, images: Tensor, views: Any) -> None:
        """The batch drawn for this step, and which views it is of; some teachers know their answers for these."""

    def member(self, m: int) -> nn.Module:
        """Teacher m, as a network [B, C, H, W] -> [B, K]."""
        return self.networks[m]


@dataclass
class Method:
    """One variant: which student is trained, which inputs it is shown, what it is asked to match.

    A subclass is a dataclass; its fields are the variant's hyper-parameters and, by that, its Hydra configuration.
    It raises ValueError in `__post_init__` where they make no sense.
    """

    citation: ClassVar[str] = ""  # Authors. Title. Venue, year.
    teachers: ClassVar[int | None] = None  # how many it learns from; None: all of the set
    most_teachers: ClassVar[int | None] = None  # the largest teacher set it can learn from; None: any
    # Whether devices that share a batch come to what one comes to: not where something is drawn for every image, which each
    # would draw for its own, nor where the loss is no mean over images.
    divisible: ClassVar[bool] = True
    trained: ClassVar[bool] = True  # False: no step is taken, and the student is what `adopt` makes it
    # Whether a step does the same to the same tensors every time but for what `choice` says, so that it can be captured on
    # a GPU and replayed: what Python does in it is done only once then. Not inherited: each class says it for itself.
    capturable: ClassVar[bool] = False
    # Share of the training that is done, in [0, 1): the trainer says so before every step. A method that reads it does
    # another thing in each, and cannot be captured.
    progress = 0.0
    reestimate_bn: bool = False  # recompute the deployed network's batch-norm statistics on the training data

    def minimum_teachers(self) -> int:
        """The smallest teacher set it can learn from."""
        return 1 if self.teachers is None else self.teachers

    def passes(self, members: int) -> int:
        """What a training step must cost, in forward passes of one network on one batch, with so many teachers.

        A backward pass counts 2, one to the input alone 1; a plain student's own step so costs 3 (spec: cost model).
        """
        return 3

    def inference_passes(self, members: int) -> float:
        """What the deployed network costs, in forward passes of a plain one."""
        return 1

    def epochs(self, asked: int, members: int) -> int:
        """How many epochs it is trained, where the recipe asks for so many."""
        return asked

    def known_answers(self, members: int) -> int:
        """How many teachers, of so many, a step asks about the images as they were drawn: what a cache can know."""
        if type(self).inputs is not Method.inputs:
            return 0
        return members if self.teachers is None else self.teachers

    def student(self, network: nn.Module, members: int, generator: torch.Generator) -> nn.Module:
        """The module to train, made from a freshly initialised plain network. `members` is the number of teachers."""
        return network

    def adopt(self, student: nn.Module, teachers: Teachers) -> None:
        """What a new student takes over from its teachers, in place. Raises ValueError where it cannot."""

    def choice(self, members: int, generator: torch.Generator) -> Hashable:
        """What `inputs` draws from the step's generator to choose what it does; `members` is the number of teachers."""
        return None

    def inputs(
        self, images: Tensor, labels: Tensor, teachers: Teachers, student: nn.Module, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the student is shown: images [B', C, H, W] in [0, 1] and labels [B'].

        `generator` lives on the CPU, so that drawing from it never waits for the device. It belongs to this step.
        """
        return images, labels

    def loss(self, images: Tensor, labels: Tensor, teachers: Teachers, student: nn.Module) -> dict[str, Tensor]:
        """{"loss": the scalar to minimise (weight decay excluded), and its named parts}."""
        raise NotImplementedError

    def deploy(self, student: nn.Module) -> nn.Module:
        """ONE network for inference, images -> logits [B, K]; the student is left as it is."""
        return copy.deepcopy(student)

    def form(self, network: nn.Module, members: int) -> nn.Module:
        """A network such as `deploy` returns, made from a plain one: it is given the weights of a deployed one."""
        return network

    def parameter_groups(self, student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for the optimiser: params, weight_decay, lr_scale (a factor on every learning rate)."""
        return [{"params": list(student.parameters()), "weight_decay": weight_decay, "lr_scale": 1.0}]

    def rated_groups(self, student: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The same with each group's own `lr`, as torch's SGD and its schedulers take them: for a loop of one's own."""
        return [{**group, "lr": lr * group["lr_scale"]} for group in self.parameter_groups(student, weight_decay)]


def at_least_float32(logits: Tensor) -> Tensor:
    """Losses are computed in float32 also under bfloat16 autocast; float64 stays."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds; for hyper-parameters in `__post_init__`."""
    if not condition:
        raise ValueError(message)
