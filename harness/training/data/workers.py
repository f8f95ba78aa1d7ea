"""Batches of images in files: decoded, cropped and mirrored by worker processes while the device trains.

An image's view depends on (seed, epoch, its row) alone, and the order on (seed, epoch): neither the number of workers
nor an interruption shows in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from harness import streams
from harness.training.data.augmentation import to_unit
from harness.training.data.batches import Batch, Own, all_of, count_steps, draw_rows
from harness.training.data.dataset import Split
from harness.training.data.decoders import Key
from harness.training.data.files import FileImages
from harness.training.data.images import channels_first
from harness.training.data.transfer import send

AREA = (0.08, 1.0)  # of the image
RATIO = (3 / 4, 4 / 3)  # of width to height
LOG_RATIO = torch.log(torch.tensor(RATIO)).tolist()
TRIES = 10


class RandomView:
    """A random part of an image in a random shape, scaled to the size, as ImageNet is trained.

    flip: mirror with probability one half. Draws what torchvision's RandomResizedCrop and RandomHorizontalFlip draw.
    """

    def __init__(self, size: int, flip: bool, seed: int | str):
        self.size, self.flip, self.seed = size, flip, seed

    def __call__(self, image: Image.Image, key: Key) -> np.ndarray:
        stream = streams.generator(self.seed, "augmentation", *key)
        left, top, width, height = draw_part(*image.size, stream)
        part = image.crop((left, top, left + width, top + height))
        part = part.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if self.flip and torch.rand(1, generator=stream) < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return channels_first(part)


def draw_part(width: int, height: int, stream: torch.Generator) -> tuple[int, int, int, int]:
    """Left, top, width and height of a part within an image; the middle, where none of TRIES lies within."""
    for _ in range(TRIES):
        area = width * height * torch.empty(1).uniform_(*AREA, generator=stream).item()
        ratio = torch.empty(1).uniform_(*LOG_RATIO, generator=stream).exp().item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (1,), generator=stream))
            return int(torch.randint(width - w + 1, (1,), generator=stream)), top, w, h
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (width - w) // 2, (height - h) // 2, w, h


class WorkerBatches:
    """Batches of a split in files. `steps`: at most so many batches an epoch."""

    def __init__(
        self,
        split: Split,
        flip: bool,
        seed: int | str,
        batch_size: int,
        steps: int | None = None,
        own: Own = all_of,
    ):
        self.own = own
        self.images: FileImages = split.images
        self.split, self.seed, self.batch_size, self.device = split, seed, batch_size, self.images.device
        self.steps = count_steps(len(split), batch_size, steps)
        self.view = RandomView(self.images.shape[-1], flip, seed)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `skip` of it on; none before it is decoded."""
        rows = self.own(draw_rows(len(self.split), self.batch_size, self.steps, self.seed, epoch))[skip:]
        for images, chosen in zip(self.images.read(rows, self.view, epoch), send(rows, self.device), strict=True):
            yield Batch(to_unit(images), self.split.labels[chosen])
