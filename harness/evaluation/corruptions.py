"""Built-in corruptions of images, batched on the device: ten types at five severities.

They resemble those of Hendrycks and Dietterich (2019), with strengths of the same order, but they are NOT their
files: numbers on these do not compare with published ones. They are the same for every run on the same images: what
is random in them comes from a stream that depends on the data set, type and severity alone, drawn on the CPU.

Every function takes images [B, C, H, W] in [0, 1], a strength (see `STRENGTHS`) and a CPU generator.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import streams
from harness.training.data.augmentation import to_unit

SEVERITIES = (1, 2, 3, 4, 5)
BATCH = 1000
KERNEL_SIZE = 32  # blur is given in pixels of an image of this size, and grows with larger ones


def draw(like: Tensor, sampler: Callable[..., Tensor], generator: torch.Generator) -> Tensor:
    return sampler(like.shape, generator=generator).to(like.device)


def gaussian_noise(x: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    return x + sd * draw(x, torch.randn, generator)


def shot_noise(x: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(x.cpu() * photons, generator).to(x.device) / photons


def impulse_noise(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    chance = draw(x, torch.rand, generator)
    return torch.where(chance < share / 2, 0.0, torch.where(chance > 1 - share / 2, 1.0, x))


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel with one kernel [k, k] that sums to 1; images go on as their edges do."""
    kernel = (kernel / kernel.sum()).to(x)
    pad = kernel.shape[-1] // 2
    padded = F.pad(x, (pad,) * 4, mode="replicate")
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None]).view_as(x)


def grid(x: Tensor, reach: float) -> tuple[Tensor, Tensor, float]:
    """Coordinates of a kernel for a blur of `reach` pixels at KERNEL_SIZE, and that reach in pixels of x."""
    reach *= max(1.0, x.shape[-1] / KERNEL_SIZE)
    half = torch.arange(-math.ceil(reach), math.ceil(reach) + 1, dtype=torch.float32)
    return *torch.meshgrid(half, half, indexing="ij"), reach


def gaussian_blur(x: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    dy, dx, reach = grid(x, 3 * sd)
    return convolve(x, torch.exp(-(dy**2 + dx**2) / (2 * (reach / 3) ** 2)))


def defocus_blur(x: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    dy, dx, reach = grid(x, radius)
    return convolve(x, (reach + 0.5 - (dy**2 + dx**2).sqrt()).clamp(0, 1))


def motion_blur(x: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """One direction for the batch, drawn at random."""
    dy, dx, reach = grid(x, length)
    angle = float(torch.rand((), generator=generator)) * math.pi
    across, along = dy * math.cos(angle) - dx * math.sin(angle), dy * math.sin(angle) + dx * math.cos(angle)
    return convolve(x, (1 - across.abs()).clamp(0, 1) * (along.abs() <= reach))


def contrast(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * share + mean


def brightness(x: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    return x + shift


def pixelate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    size = [max(1, round(side * share)) for side in x.shape[-2:]]
    return F.interpolate(F.interpolate(x, size, mode="area"), x.shape[-2:], mode="nearest-exact")


LUMA = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
# The luminance table of the JPEG standard (ITU T.81, annex K), used for every channel.
QUANTA = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


@functools.cache
def cosines() -> Tensor:
    """The orthonormal discrete cosine transform of eight values, [frequency, position]."""
    n = torch.arange(8.0)
    matrix = torch.cos((2 * n + 1) * n[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def jpeg(x: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """JPEG's rounding of the cosine transform of 8x8 blocks, without chroma subsampling."""
    height, width = x.shape[-2:]
    colour = x.shape[1] == 3
    if colour:
        x = torch.einsum("ij,bjhw->bihw", LUMA.to(x), x)
    middle = torch.tensor([128.0, 0, 0] if colour else [128.0], device=x.device).view(-1, 1, 1)
    padded = F.pad(x * 255 - middle, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = padded.unflatten(-1, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # [B, C, rows, columns, 8, 8]
    dct = cosines().to(x)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    quanta = ((QUANTA * scale + 50) / 100).floor().clamp(1, 255).to(x)
    rounded = (dct @ blocks @ dct.T / quanta).round() * quanta
    blocks = dct.T @ rounded @ dct
    x = (blocks.transpose(3, 4).flatten(2, 3).flatten(3, 4)[..., :height, :width] + middle) / 255
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(LUMA).to(x), x) if colour else x


# One strength a severity.
STRENGTHS: dict[Callable[..., Tensor], tuple[float, ...]] = {
    gaussian_noise: (0.04, 0.06, 0.08, 0.10, 0.12),
    shot_noise: (500, 250, 100, 75, 50),
    impulse_noise: (0.01, 0.03, 0.05, 0.07, 0.10),
    gaussian_blur: (0.4, 0.6, 0.7, 0.8, 1.0),
    defocus_blur: (0.5, 0.8, 1.0, 1.3, 1.6),
    motion_blur: (0.8, 1.2, 1.6, 2.0, 2.5),
    contrast: (0.75, 0.5, 0.4, 0.3, 0.15),
    brightness: (0.05, 0.10, 0.15, 0.20, 0.30),
    pixelate: (0.8, 0.7, 0.6, 0.5, 0.35),
    jpeg: (80, 65, 58, 50, 40),
}


@torch.no_grad()
def corrupt(images: Tensor, kind: Callable[..., Tensor], severity: int, name: str) -> Tensor:
    """Images [N, C, H, W] uint8 after one corruption, as uint8 on the same device. `name` is the data set's."""
    generator = streams.generator(name, f"shift/{kind.__name__}", severity)
    strength = STRENGTHS[kind][severity - 1]
    batches = (kind(to_unit(batch), strength, generator) for batch in images.split(BATCH))
    return torch.cat([(batch.clamp(0, 1) * 255).round().byte() for batch in batches])


def suite() -> Iterator[tuple[Callable[..., Tensor], int]]:
    """Every type at every severity."""
    return itertools.product(STRENGTHS, SEVERITIES)
