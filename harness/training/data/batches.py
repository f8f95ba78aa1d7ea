"""The batches that a training is shown, in an order and with augmentations that depend on (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from harness import streams
from harness.training.data.augmentation import Augmentation
from harness.training.data.dataset import Split
from harness.training.data.transfer import send

Own = Callable[[Tensor], Tensor]  # of the rows [..., B] of batches, those that this process computes


def all_of(rows: Tensor) -> Tensor:
    """All, where one process computes them."""
    return rows


@dataclass(frozen=True)
class Views:
    """Which of the N * V views of a split the images of a batch are, [B]: on the device, and on the host for who looks
    something up there and must not wait; None where nobody may.
    """

    on_device: Tensor
    on_host: Tensor | None

    def chunk(self, parts: int) -> list[Views]:
        on_host = [None] * parts if self.on_host is None else self.on_host.chunk(parts)
        return list(map(Views, self.on_device.chunk(parts), on_host))


@dataclass(frozen=True)
class Batch:
    """Images [B, C, H, W] in [0, 1] with their labels, [B] or as distributions [B, K], on the device."""

    images: Tensor
    labels: Tensor
    views: Views | None = None  # where they can be counted


class Batches(Protocol):
    """A source of batches. The incomplete last one of an epoch is dropped."""

    steps: int  # an epoch
    batch_size: int  # of all processes together
    device: torch.device

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `skip` of it on."""


def count_steps(images: int, batch_size: int, most: int | None) -> int:
    """Whole batches an epoch, at most so many."""
    steps = images // batch_size
    return steps if most is None else min(steps, most)


def draw_rows(images: int, batch_size: int, steps: int, seed: int | str, epoch: int) -> Tensor:
    """Which images the batches of an epoch show, [steps, B]: the same for every source and method."""
    order = torch.randperm(images, generator=streams.generator(seed, "order", epoch))
    return order[: steps * batch_size].view(steps, batch_size)


class DeviceBatches:
    """Batches of a split that lies on the device as a whole: its views are made by index arithmetic.

    `steps`: at most so many batches an epoch.
    """

    def __init__(
        self,
        split: Split,
        padding: int,
        flip: bool,
        seed: int | str,
        batch_size: int,
        steps: int | None = None,
        own: Own = all_of,
    ):
        self.split, self.seed, self.batch_size, self.own = split, seed, batch_size, own
        self.device = split.images.device
        self.augmentation = Augmentation(split, padding, flip, seed)
        self.steps = count_steps(len(split), batch_size, steps)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        rows = self.own(draw_rows(len(self.split), self.batch_size, self.steps, self.seed, epoch))
        on_host = self.augmentation.draw(epoch, rows)[skip:]
        on_device = send(on_host, self.device)
        places = self.augmentation.locate(on_device)
        labels = self.split.labels[places[0]]
        for views, batch_labels, *place in zip(map(Views, on_device, on_host), labels, *places, strict=True):
            yield Batch(self.augmentation.cut(*place), batch_labels, views)
