"""RandAugment (Cubuk et al. 2020), batched on the device: every image goes through n operations drawn for it.

The operations and their strengths at magnitude 0..30 are torchvision's: identity, shear, translation, rotation (up to
0.3, 45 % of the side, 30 degrees; bilinear, black outside), brightness, colour, contrast, sharpness (up to 90 % more or
less), posterize (down to 4 bits), solarize, autocontrast, equalize. An image's strength differs by its sign alone.

A batch is sorted by operation, so that related ones are few kernels on neighbouring images [B, C, H, W] in [0, 1]:
geometry is one matrix an image and one sampling, colour is one step away from a dull image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.data.batches import Own, all_of
from harness.training.data.transfer import send

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOURS = ("brightness", "colour", "contrast", "sharpness")
LEVELS = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *GEOMETRY, *COLOURS, *LEVELS)  # in the order of their numbers

MAGNITUDES = 30  # the strongest
SHEAR, TRANSLATION, ROTATION, ENHANCEMENT = 0.3, 150 / 331, math.radians(30), 0.9
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue


# Geometry -------------------------------------------------------------------------------------------------------


def matrices(strength: float, height: int, width: int) -> dict[str, tuple[float, ...]]:
    """a b c, d e f of every operation of geometry at a signed strength in [-1, 1].

    The pixel at (u, v), from the image's centre in halves of its sides, is taken from (a u + b v + c, d u + e v + f).
    """
    slope, shift, angle = SHEAR * strength, 2 * TRANSLATION * strength, ROTATION * strength
    tall, wide = height / width, width / height
    return {
        "shear_x": (1, slope * tall, slope * tall, 0, 1, 0),  # the upper edge stays
        "shear_y": (1, 0, 0, slope * wide, 1, slope * wide),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
        "rotate": (math.cos(angle), -math.sin(angle) * tall, 0, math.sin(angle) * wide, math.cos(angle), 0),
    }


def centres(length: int, device: torch.device) -> Tensor:
    """Where the pixels along a side [length] lie, from its centre in halves of the side."""
    return ((2 * torch.arange(length) + 1) / length - 1).to(device)


# Colour ---------------------------------------------------------------------------------------------------------


def dull(x: Tensor, sizes: Sequence[int], weights: Tensor) -> Tensor:
    """What each image of COLOURS, so many of each, is moved away from or to: black, grey, its mean grey, a blur.

    The blur is over 3x3 pixels, of which the centre counts five times; pixels at the edge stay. weights [C, 1, 1]: of
    the channels in grey.
    """
    found = x.clone()
    black, grey, even, blurred = found.split(sizes)
    black.zero_()
    shades = (x[sizes[0] : sizes[0] + sizes[1] + sizes[2]] * weights).sum(1, keepdim=True)
    grey.copy_(shades[: sizes[1]])
    even.copy_(shades[sizes[1] :].mean((2, 3), keepdim=True))
    if len(blurred) and min(x.shape[-2:]) >= 3:
        inner = blurred[..., 1:-1, 1:-1]
        inner.copy_(torch.lerp(F.avg_pool2d(x[-len(blurred) :], 3, 1), inner, 4 / 13))
    return found


# Levels ---------------------------------------------------------------------------------------------------------


def posterize(x: Tensor, step: int) -> Tensor:
    """Every level of 0..255 down to a multiple of the step."""
    return (x * 255).round_().div_(step, rounding_mode="floor").mul_(step / 255)


def solarize(x: Tensor, threshold: float) -> Tensor:
    """Levels from the threshold on are inverted."""
    return torch.where(x >= threshold, 1 - x, x)


def autocontrast(x: Tensor) -> Tensor:
    """Every channel from 0 to 1; one of a single level stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low), x)


def equalize(x: Tensor) -> Tensor:
    """Every channel with its 256 levels spread evenly over its pixels, by the rule of PIL."""
    values = (x * 255).round_().long().flatten(0, 1).flatten(1)  # [B C, H W]
    histogram = values.new_zeros(len(values), 256).scatter_add_(1, values, values.new_ones(()).expand_as(values))
    last = histogram.gather(1, values.amax(1, keepdim=True))
    step = (values.shape[1] - last) // 255
    table = (histogram.cumsum(1) - histogram + step // 2) // step.clamp(min=1)
    spread = (table.clamp(0, 255) / 255).gather(1, values).view(x.shape)
    return torch.where(step.view(*x.shape[:2], 1, 1) > 0, spread, x)


class RandAugment:
    """`count` operations for every image, each drawn evenly from OPERATIONS with a random sign of its strength.

    size: height and width of the images.
    """

    stream = "randaugment"

    def __init__(self, count: int, magnitude: int, size: tuple[int, int], device: torch.device):
        self.count, self.strength = count, magnitude / MAGNITUDES
        step = 2 ** round(4 * self.strength)  # the upper 8 to 4 bits
        threshold = float(1 - torch.tensor(self.strength))  # in float32, as levels are
        self.levels = (
            *(partial(posterize, step=step), partial(solarize, threshold=threshold)),
            *(autocontrast, equalize),
        )
        self.x, self.y = centres(size[1], device).view(1, 1, -1, 1), centres(size[0], device).view(1, -1, 1, 1)
        self.grey = torch.tensor(GREY, device=device).view(3, 1, 1)
        # By operation and sign, [2 operations, 7]: the matrix, and how far colours move.
        signed = [(matrices(sign * self.strength, *size), 1 + sign * ENHANCEMENT * self.strength) for sign in (-1, 1)]
        still = (1, 0, 0, 0, 1, 0)
        table = [(*moves.get(name, still), factor) for name in OPERATIONS for moves, factor in signed]
        self.table = torch.tensor(table, device=device)

    def draw(
        self, generator: torch.Generator, steps: int, batch: int, device: torch.device, own: Own = all_of
    ) -> list[tuple]:
        """For every step: where its images go from round to round [n + 1, B] and what row of the table each has there
        [n, B], on the device; and how many images each operation of each round has.

        Operations are drawn on the CPU, so that no step has to ask the device for the sizes of its groups.
        """
        shape = (steps, self.count, batch)
        operations = torch.randint(len(OPERATIONS), shape, generator=generator)
        positive = torch.randint(2, shape, generator=generator)  # of the batch's images by operation
        drawn = send(torch.stack((operations, positive)).byte(), device)
        signs = torch.empty_like(drawn[1]).scatter_(2, drawn[0].argsort(stable=True), drawn[1])
        operations, numbers, signs = own(operations), own(drawn[0]), own(signs)
        rounds = torch.arange(0, steps * self.count * len(OPERATIONS), len(OPERATIONS)).view(steps, self.count, 1)
        sizes = (operations + rounds).flatten().bincount(minlength=rounds.numel() * len(OPERATIONS))
        numbers, rows = numbers.sort(stable=True)
        back = torch.empty_like(rows).scatter_(2, rows, torch.arange(rows.shape[-1], device=device).expand_as(rows))
        places = torch.cat((rows[:, :1], back[:, :-1].gather(2, rows[:, 1:]), back[:, -1:]), 1)
        keys = (2 * numbers + signs.gather(2, rows)).int()
        return list(zip(places, keys, sizes.view(steps, self.count, -1).tolist(), strict=True))

    def __call__(self, images: Tensor, labels: Tensor, draws: tuple) -> tuple[Tensor, Tensor]:
        places, keys, sizes = draws
        for place, key, counts in zip(places[:-1], keys, sizes, strict=True):
            images = self.operate(images[place], self.table[key], counts)
        return images[places[-1]], labels

    def operate(self, x: Tensor, settings: Tensor, sizes: Sequence[int]) -> Tensor:
        """One operation an image, of images sorted by operation; settings [B, 7] are their rows of the table."""
        first = 1 + len(GEOMETRY)
        colours = sizes[first : first + len(COLOURS)]
        groups = [sizes[0], sum(sizes[1:first]), sum(colours), *sizes[first + len(COLOURS) :]]
        still, moved, coloured, *levelled = x.split(groups)
        _, matrix, factor, *_ = settings.split(groups)
        changed = [still]
        if len(moved):
            changed.append(self.warp(moved, matrix[:, :6]))
        if len(coloured):
            weights = self.grey if x.shape[1] == 3 else 1.0
            start = dull(coloured, colours, weights)
            changed.append(torch.lerp(start, coloured, factor[:, 6].view(-1, 1, 1, 1)).clamp_(0, 1))
        changed += [operation(part) for operation, part in zip(self.levels, levelled, strict=True) if len(part)]
        return torch.cat(changed)

    def warp(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Images sampled by matrices [B, 6]; see `matrices`."""
        across, down, shift = matrix.view(-1, 1, 1, 2, 3).unbind(-1)
        grid = torch.addcmul(torch.addcmul(shift, down, self.y), across, self.x)  # no matrix product: it may be TF32
        return F.grid_sample(x, grid, align_corners=False)
