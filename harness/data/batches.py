"""The batches that a training is shown, in an order and with augmentations that depend on (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from harness import streams
from harness.data.augmentation import Augmentation
from harness.data.dataset import Split


@dataclass(frozen=True)
class Batch:
    """Images [B, C, H, W] in [0, 1] with their labels, [B] or as distributions [B, K], on the device."""

    images: Tensor
    labels: Tensor
    views: Tensor | None = None  # [B] which of the N * V views of the split each image is, where they can be counted


class Batches(Protocol):
    """A source of batches. The incomplete last one of an epoch is dropped."""

    steps: int  # an epoch
    batch_size: int
    device: torch.device

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `skip` of it on."""


class DeviceBatches:
    """Batches of a split that lies on the device as a whole: its views are made by index arithmetic.

    `steps`: at most so many batches an epoch.
    """

    def __init__(
        self, split: Split, padding: int, flip: bool, seed: int | str, batch_size: int, steps: int | None = None
    ):
        self.split, self.seed, self.batch_size = split, seed, batch_size
        self.device = split.images.device
        self.augmentation = Augmentation(split.images, padding, flip, seed)
        self.steps = len(split) // batch_size
        if steps is not None:
            self.steps = min(self.steps, steps)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        order = torch.randperm(len(self.split), generator=streams.generator(self.seed, "order", epoch))
        order = order.to(self.device)
        draws = self.augmentation.draw(epoch)
        for k in range(skip, self.steps):
            rows = order[k * self.batch_size : (k + 1) * self.batch_size]
            images, views = self.augmentation(rows, draws)
            yield Batch(images, self.split.labels[rows], views)
