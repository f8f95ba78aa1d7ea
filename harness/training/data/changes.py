"""Batches changed further on the device, whoever made them: RandAugment, CutOut, MixUp.

What is drawn depends on (seed, epoch, step) alone, each change by a stream of its own, and is drawn for a whole epoch
at once: a step then waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from harness import streams
from harness.training.data.batches import Batch, Batches, Own, all_of
from harness.training.data.cutout import CutOut
from harness.training.data.dataset import Dataset
from harness.training.data.randaugment import RandAugment


class Change(Protocol):
    """One kind of change of a batch."""

    stream: str  # the name of its random stream

    def draw(self, generator: torch.Generator, steps: int, batch: int, device: torch.device, own: Own) -> Sequence[Any]:
        """What every step of an epoch needs for this process's rows of its batch, ready on the device."""

    def __call__(self, images: Tensor, labels: Tensor, draws: Any) -> tuple[Tensor, Tensor]:
        """Changed images [B, C, H, W] in [0, 1] and labels, [B] or as distributions [B, K]."""


class ChangedBatches:
    """The batches of another source after changes, in their order. Their images are views of nothing any more."""

    def __init__(self, source: Batches, changes: Sequence[Change], seed: int | str, own: Own = all_of):
        self.source, self.changes, self.seed, self.own = source, changes, seed, own
        self.steps, self.batch_size, self.device = source.steps, source.batch_size, source.device

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `skip` of it on."""
        shape = (self.steps, self.batch_size, self.device, self.own)
        drawn = [change.draw(streams.generator(self.seed, change.stream, epoch), *shape) for change in self.changes]
        for step, batch in enumerate(self.source.epoch(epoch, skip), skip):
            images, labels = batch.images, batch.labels
            for change, draws in zip(self.changes, drawn, strict=True):
                images, labels = change(images, labels, draws[step])
            yield Batch(images, labels)


def image_changes(config: dict[str, Any], data: Dataset) -> list[Change]:
    """The changes that a `data` configuration asks for."""
    images = data.train.images
    size, device = tuple(images.shape[-2:]), images.device
    changes: list[Change] = []
    if config["randaugment"]:
        changes.append(RandAugment(config["randaugment"], config["magnitude"], size, device))
    if config["cutout"]:
        changes.append(CutOut(config["cutout"], size, torch.tensor(data.mean, device=device)))
    return changes
