"""Pad, crop and flip as index arithmetic on the device, from one stream for every method."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.streams import generator
from harness.training.data.dataset import Split


def count_views(padding: int, flip: bool) -> int:
    """How many views crops and mirror images make of an image."""
    return (2 * padding + 1) ** 2 * (2 if flip else 1)


class Augmentation:
    """Random views of a split's images; raw pixels outside the image are black.

    padding p in pixels; flip: mirror with probability one half. A view is known by its number: n * V + v is view v of
    image n, first all corners of the crop, row by row, then the same mirrored. An epoch's depend on (seed, epoch) alone.
    """

    def __init__(self, split: Split, padding: int, flip: bool, seed: int | str):
        self.padded = split.padded_by(padding)
        self.padding, self.flip, self.seed = padding, flip, seed
        self.across = 2 * padding + 1
        self.views = count_views(padding, flip)  # of each image
        channels, height, width = split.images.shape[1:]
        self.channel, self.y, self.x = (
            torch.arange(length, device=self.padded.device) for length in (channels, height, width)
        )
        self.mirrored_x = width - 1 - self.x

    def draw(self, epoch: int, rows: Tensor) -> Tensor:
        """The numbers of the views that an epoch shows of images `rows`, of any shape; on the host, both."""
        stream = generator(self.seed, "augmentation", epoch)
        count = len(self.padded)
        dy, dx = torch.randint(self.across, (2, count), generator=stream)
        mirrored = torch.rand(count, generator=stream) < (0.5 if self.flip else 0)
        view = (mirrored * self.across + dy) * self.across + dx
        return rows * self.views + view[rows]

    def locate(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, upper and left edge of the crop in the padded image, and whether it is mirrored, by number of view."""
        rows, view = views // self.views, views % self.views
        mirrored, corner = view // self.across**2, view % self.across**2
        return rows, corner // self.across, corner % self.across, mirrored.bool()

    def cut(self, rows: Tensor, dy: Tensor, dx: Tensor, mirrored: Tensor) -> Tensor:
        """Views [B, C, H, W] as float32 in [0, 1], where `locate` finds them, [B] each."""
        y = dy[:, None] + self.y
        x = dx[:, None] + torch.where(mirrored[:, None], self.mirrored_x, self.x)
        place = (rows[:, None, None, None], self.channel[:, None, None], y[:, None, :, None], x[:, None, None, :])
        return to_unit(self.padded[place])

    def __call__(self, views: Tensor) -> Tensor:
        """Views by number [B], on the images' device, as float32 in [0, 1]."""
        return self.cut(*self.locate(views))


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return images.float().div_(255)
