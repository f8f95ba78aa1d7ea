"""Pad, crop and flip as index arithmetic on the device, from one stream for every method."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.streams import generator


def crop(padded: Tensor, rows: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, size: tuple[int, int]) -> Tensor:
    """Views [B, C, H, W] of images padded by p on every side [N, C, H + 2p, W + 2p].

    rows [B] chooses images, dy and dx [B] in 0..2p the crop's upper left corner, flip [B] (bool) mirrors left to right.
    """
    height, width = size
    device = padded.device
    y = dy[:, None] + torch.arange(height, device=device)
    x = torch.arange(width, device=device).expand(len(rows), width)
    x = dx[:, None] + torch.where(flip[:, None], width - 1 - x, x)
    channel = torch.arange(padded.shape[1], device=device)
    return padded[rows[:, None, None, None], channel[:, None, None], y[:, None, :, None], x[:, None, None, :]]


def count_views(padding: int, flip: bool) -> int:
    """How many views crops and mirror images make of an image."""
    return (2 * padding + 1) ** 2 * (2 if flip else 1)


class Augmentation:
    """Random views of a split's images; raw pixels outside the image are black.

    padding p in pixels; flip: mirror with probability one half. An epoch's draws depend on (seed, epoch) alone.
    """

    def __init__(self, images: Tensor, padding: int, flip: bool, seed: int | str):
        self.size = images.shape[-2:]
        self.padded = torch.nn.functional.pad(images, (padding,) * 4)
        self.padding, self.flip, self.seed = padding, flip, seed
        self.views = count_views(padding, flip)  # of each image

    def draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """dy, dx and flip of every image of the split for one epoch, [N] each, on the images' device."""
        stream = generator(self.seed, "augmentation", epoch)
        count, device = len(self.padded), self.padded.device
        dy, dx = torch.randint(2 * self.padding + 1, (2, count), generator=stream)
        flip = torch.rand(count, generator=stream) < (0.5 if self.flip else 0)
        return dy.to(device), dx.to(device), flip.to(device)

    def __call__(self, rows: Tensor, draws: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Views of the images `rows` [B] as float32 in [0, 1], by their draws of the epoch, and the views' numbers [B].

        View number n * V + v is view v of image n, as `view` makes it.
        """
        dy, dx, flip = (values[rows] for values in draws)
        images = to_unit(crop(self.padded, rows, dy, dx, flip, self.size))
        across = 2 * self.padding + 1
        mirrored = flip.long() * across**2 if self.flip else 0
        return images, rows * self.views + mirrored + dy * across + dx

    def view(self, v: int, rows: Tensor) -> Tensor:
        """View v in 0..V-1 of the images `rows` [B], as float32 in [0, 1]."""
        across = 2 * self.padding + 1
        mirrored, corner = divmod(v, across**2)
        dy, dx = divmod(corner, across)
        dy, dx, mirrored = (torch.full_like(rows, value) for value in (dy, dx, mirrored))
        return to_unit(crop(self.padded, rows, dy, dx, mirrored.bool(), self.size))


def to_unit(images: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return images.float().div_(255)
