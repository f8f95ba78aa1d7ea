"""Random small networks, images and students for property tests."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from methods.latent_be import LatentBE, convert
from methods.method import Teachers

SIZE = 6  # pixels on a side
CLASSES = 3


class Residual(nn.Module):
    """A branch beside the identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.shortcut(x)


class Classifier(nn.Module):
    """Features, their mean over the image, and a multilayer perceptron."""

    def __init__(self, features: nn.Module, head: nn.Module):
        super().__init__()
        self.features, self.head = features, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


@st.composite
def convolutions(draw: st.DrawFn, channels: int, out: int | None = None) -> nn.Conv2d:
    """Grouped, depth-wise, dilated, padded in any mode, with and without bias; images keep their size."""
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    groups = draw(st.sampled_from(divisors)) if out is None else 1
    out = draw(st.integers(1, 2)) * channels if out is None else out
    kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 2)]))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    bias = draw(st.booleans())
    padding = draw(st.sampled_from(["same", dilation * (kernel // 2)]))
    return nn.Conv2d(
        channels, out, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias, padding_mode=mode
    )


@st.composite
def stages(draw: st.DrawFn, channels: int) -> tuple[nn.Module, int]:
    """A convolution with or without norm and activation, perhaps residual; and its output channels."""
    conv = draw(convolutions(channels))
    out = conv.out_channels
    layers = [conv]
    if draw(st.booleans()):
        layers.append(nn.BatchNorm2d(out))
    layers.append(draw(st.sampled_from([nn.ReLU(), nn.Tanh(), nn.Identity()])))
    stage: nn.Module = nn.Sequential(*layers)
    if draw(st.booleans()):
        same = out == channels
        stage = Residual(stage, nn.Identity() if same else draw(convolutions(channels, out)))
    return stage, out


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """A classifier in float64, [B, channels, SIZE, SIZE] -> [B, CLASSES], every tensor random."""
    channels = draw(st.integers(1, 4))
    stem, width = channels, channels
    parts: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        stage, width = draw(stages(width))
        parts.append(stage)
    hidden = draw(st.integers(0, 5))
    sizes = [width, *([hidden] if hidden else []), CLASSES]
    head = [nn.Linear(a, b, bias=draw(st.booleans())) for a, b in pairwise(sizes)]
    network = Classifier(nn.Sequential(*parts), nn.Sequential(*head)).double()
    network.channels = stem
    randomise(network, draw(st.integers(0, 999)))
    return network


def small_network() -> nn.Module:
    """A convolution, batch norm and a classifier, the same at every call."""
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(4 * SIZE * SIZE, CLASSES)).double()
    network.channels = 1
    return randomise(network, 1)


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Weights of order one, so that nothing is too small to see; positive variances."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.data.copy_(values.abs() + 0.5 if name.endswith("running_var") else 0.5 * values)
    return network


def images_for(network: nn.Module, seed: int, count: int = 4) -> Tensor:
    """Images [B, C, SIZE, SIZE], far enough from 0 and 1 that a step of usual size is not clipped."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, network.channels, SIZE, SIZE)
    return 0.3 + 0.4 * torch.rand(shape, generator=generator, dtype=torch.float64)


def teachers_for(network: nn.Module, members: int, seed: int) -> Teachers:
    """Linear teachers on the network's images."""
    pixels = network.channels * SIZE * SIZE
    built = [nn.Sequential(nn.Flatten(), nn.Linear(pixels, CLASSES)).double() for _ in range(members)]
    return Teachers([randomise(teacher, seed + m) for m, teacher in enumerate(built)])


def student_for(network: nn.Module, members: int, seed: int) -> LatentBE:
    """A student whose members differ: r, s of mean 1 and sd 0.5."""
    return convert(network, members, "normal", 0.5, torch.Generator().manual_seed(seed))
