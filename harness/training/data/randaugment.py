"""RandAugment (Cubuk et al. 2020), batched on the device: every image goes through n operations drawn for it.

The operations and their strengths at magnitude 0..30 are torchvision's: identity, shear, translation, rotation (up to
0.3, 45 % of the side, 30 degrees; bilinear, black outside), brightness, colour, contrast, sharpness (up to 90 % more or
less), posterize (down to 4 bits), solarize, autocontrast, equalize. Each takes images [B, C, H, W] in [0, 1] and signed
strengths [B, 1, 1, 1] in [-1, 1], the share of its largest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MAGNITUDES = 30  # the strongest
SHEAR, TRANSLATION, ROTATION, ENHANCEMENT = 0.3, 150 / 331, math.radians(30), 0.9
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue

Operation = Callable[[Tensor, Tensor], Tensor]


def identity(x: Tensor, strength: Tensor) -> Tensor:
    return x


# Geometry -------------------------------------------------------------------------------------------------------


def warp(x: Tensor, rows: Sequence[Sequence[Tensor | float]]) -> Tensor:
    """The pixel at (u, v), from the image's centre, is taken from (a u + b v + c, d u + e v + f); rows are a b c, d e f.

    c and f are in pixels, every entry a number or [B].
    """
    height, width = x.shape[-2:]
    (a, b, c), (d, e, f) = rows
    scaled = (a, b * (height / width), c * (2 / width), d * (width / height), e, f * (2 / height))
    entries = [value if isinstance(value, Tensor) else x.new_full((len(x),), value) for value in scaled]
    grid = F.affine_grid(torch.stack(entries, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def shear_x(x: Tensor, strength: Tensor) -> Tensor:
    slope = SHEAR * strength.flatten()
    return warp(x, ((1.0, slope, slope * x.shape[-2] / 2), (0.0, 1.0, 0.0)))  # the upper edge stays


def shear_y(x: Tensor, strength: Tensor) -> Tensor:
    slope = SHEAR * strength.flatten()
    return warp(x, ((1.0, 0.0, 0.0), (slope, 1.0, slope * x.shape[-1] / 2)))


def translate_x(x: Tensor, strength: Tensor) -> Tensor:
    return warp(x, ((1.0, 0.0, TRANSLATION * x.shape[-1] * strength.flatten()), (0.0, 1.0, 0.0)))


def translate_y(x: Tensor, strength: Tensor) -> Tensor:
    return warp(x, ((1.0, 0.0, 0.0), (0.0, 1.0, TRANSLATION * x.shape[-2] * strength.flatten())))


def rotate(x: Tensor, strength: Tensor) -> Tensor:
    angle = ROTATION * strength.flatten()
    cos, sin = angle.cos(), angle.sin()
    return warp(x, ((cos, -sin, 0.0), (sin, cos, 0.0)))


# Colour ---------------------------------------------------------------------------------------------------------


def enhance(x: Tensor, dull: Tensor, strength: Tensor) -> Tensor:
    """Away from a dull image, or towards it, by up to ENHANCEMENT of the way."""
    return (dull + (1 + ENHANCEMENT * strength) * (x - dull)).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return sum(weight * channel for weight, channel in zip(GREY, x.split(1, 1), strict=True))


def brightness(x: Tensor, strength: Tensor) -> Tensor:
    return enhance(x, torch.zeros_like(x), strength)


def colour(x: Tensor, strength: Tensor) -> Tensor:
    return enhance(x, grey(x), strength)


def contrast(x: Tensor, strength: Tensor) -> Tensor:
    return enhance(x, grey(x).mean((1, 2, 3), keepdim=True), strength)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """The dull image is a blur over 3x3 pixels; pixels at the edge stay."""
    if min(x.shape[-2:]) < 3:
        return x
    dull = x.clone()
    dull[..., 1:-1, 1:-1] = (9 * F.avg_pool2d(x, 3, 1) + 4 * x[..., 1:-1, 1:-1]) / 13  # the centre counts five times
    return enhance(x, dull, strength)


# Levels ---------------------------------------------------------------------------------------------------------


def levels(x: Tensor) -> Tensor:
    """0..255, as whole numbers."""
    return (x * 255).round().long()


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """The upper 8 to 4 bits of every level."""
    step = torch.exp2((4 * strength.abs()).round())
    return (levels(x) / step).floor() * step / 255


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Levels from a threshold on are inverted; the threshold falls from 1 to 0."""
    return torch.where(x >= 1 - strength.abs(), 1 - x, x)


def autocontrast(x: Tensor, strength: Tensor) -> Tensor:
    """Every channel from 0 to 1; one of a single level stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low), x).clamp(0, 1)


def equalize(x: Tensor, strength: Tensor) -> Tensor:
    """Every channel with its 256 levels spread evenly over its pixels, by the rule of PIL."""
    values = levels(x).flatten(0, 1).flatten(1)  # [B C, H W]
    histogram = torch.zeros(len(values), 256, dtype=torch.long, device=x.device)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    last = histogram.gather(1, values.amax(1, keepdim=True))
    step = (values.shape[1] - last) // 255
    table = (histogram.cumsum(1) - histogram + step // 2) // step.clamp(min=1)
    spread = table.clamp(0, 255).gather(1, values).view_as(x) / 255
    return torch.where(step.view(*x.shape[:2], 1, 1) > 0, spread.to(x), x)


OPERATIONS: tuple[Operation, ...] = (
    *(identity, shear_x, shear_y, translate_x, translate_y, rotate, brightness, colour, contrast, sharpness),
    *(posterize, solarize, autocontrast, equalize),
)


class RandAugment:
    """`count` operations for every image, each drawn evenly from OPERATIONS with a random sign of its strength."""

    stream = "randaugment"

    def __init__(self, count: int, magnitude: int):
        self.count, self.strength = count, magnitude / MAGNITUDES

    def draw(self, generator: torch.Generator, steps: int, batch: int, device: torch.device) -> list[tuple]:
        """For every step: rows by operation and signs [n, B] on the device, and how many rows each operation has.

        Operations are drawn on the CPU, so that no step has to ask the device for the sizes of its groups.
        """
        shape = (steps, self.count, batch)
        operations = torch.randint(len(OPERATIONS), shape, generator=generator)
        signs = (2 * torch.randint(2, shape, generator=generator) - 1).to(device)
        rows = operations.argsort(stable=True).to(device)
        sizes = (operations[..., None] == torch.arange(len(OPERATIONS))).sum(2).tolist()
        return list(zip(rows, signs, sizes, strict=True))

    def __call__(self, images: Tensor, labels: Tensor, draws: tuple) -> tuple[Tensor, Tensor]:
        for rows, signs, sizes in zip(*draws, strict=True):
            strengths = (self.strength * signs).view(-1, 1, 1, 1)
            groups = zip(OPERATIONS, images[rows].split(sizes), strengths.split(sizes), strict=True)
            changed = torch.cat([operation(x, strength) for operation, x, strength in groups if len(x)])
            images = torch.empty_like(images)
            images[rows] = changed
        return images, labels
