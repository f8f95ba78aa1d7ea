"""Batches of images in files: decoded, cropped and mirrored by worker processes while the device trains.

An image's view depends on (seed, epoch, its row) alone, and the order on (seed, epoch): neither the number of workers
nor an interruption shows in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from harness import streams
from harness.training.data.augmentation import to_unit
from harness.training.data.batches import Batch, count_steps, draw_rows
from harness.training.data.dataset import Split
from harness.training.data.files import FileImages, Key, on_device
from harness.training.data.transfer import send


class RandomView:
    """A random part of an image in a random shape, scaled to the size (8 to 100 % of its area, as ImageNet is trained).

    flip: mirror with probability one half.
    """

    def __init__(self, size: int, flip: bool, seed: int | str):
        from torchvision.transforms import v2

        mirror = [v2.RandomHorizontalFlip()] if flip else []
        self.transform = v2.Compose([v2.RandomResizedCrop(size), *mirror, v2.PILToTensor()])
        self.seed = seed

    def __call__(self, image: Image.Image, key: Key) -> Tensor:
        # torchvision draws from torch's global stream, which without workers is that of the network's layers.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(streams.derive(self.seed, "augmentation", *key))
            return self.transform(image)


class Keys:
    """What the workers are asked for in one epoch: rows [steps, B], batch by batch."""

    epoch: int
    rows: Tensor

    def __iter__(self) -> Iterator[list[Key]]:
        return ([(self.epoch, row) for row in part.tolist()] for part in self.rows)


class WorkerBatches:
    """Batches of a split in files. `steps`: at most so many batches an epoch; workers live as long as this object."""

    def __init__(self, split: Split, flip: bool, seed: int | str, batch_size: int, steps: int | None = None):
        images: FileImages = split.images
        self.split, self.seed, self.batch_size, self.device = split, seed, batch_size, images.device
        self.steps = count_steps(len(split), batch_size, steps)
        self.keys = Keys()
        view = RandomView(images.shape[-1], flip, seed)
        self.loader = images.loader(view, self.keys, images.workers, persistent=True)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `skip` of it on; none before it is decoded."""
        rows = draw_rows(len(self.split), self.batch_size, self.steps, self.seed, epoch)[skip:]
        self.keys.epoch, self.keys.rows = epoch, rows
        for images, chosen in zip(on_device(self.loader, self.device), send(rows, self.device), strict=True):
            yield Batch(to_unit(images), self.split.labels[chosen])
