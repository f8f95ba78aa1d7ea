"""Pre-activation residual networks for small images: PreResNet-d and WRN-d-k (He et al. 2016; Zagoruyko 2016).

Layer for layer the network of Nam et al. 2022: a 3x3 stem without norm or activation, three groups of
(depth - 4) / 6 blocks, shortcuts that start from the block's raw input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv plus shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu(self.norm1(x)))
        y = self.conv2(self.relu(self.norm2(y)))
        return y + self.shortcut(x)


class PreResNet(nn.Module):
    """[B, channels, H, W] (any H, W of at least 4) -> logits [B, classes]."""

    def __init__(self, blocks: int, widths: tuple[int, int, int], classes: int, channels: int = 3, stem: int = 16):
        super().__init__()
        self.stem = nn.Conv2d(channels, stem, 3, 1, 1, bias=False)
        layers, before = [], stem
        for width, stride in zip(widths, (1, 2, 2), strict=True):
            layers += [Block(before, width, stride)]
            layers += [Block(width, width, 1) for _ in range(blocks - 1)]
            before = width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.norm(self.blocks(self.stem(images))))
        return self.classifier(x.mean((2, 3)))


def wide_resnet(depth: int, k: int, classes: int, channels: int) -> PreResNet:
    """WRN-depth-k of (depth - 4) / 6 blocks a group. Raises ValueError for a depth that has none."""
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"wrn{depth}_{k}: the depth of a WRN is 6n + 4 (10, 16, 22, 28, 40 ...)")
    return PreResNet((depth - 4) // 6, (16 * k, 32 * k, 64 * k), classes, channels)


def preresnet(depth: int, classes: int, channels: int) -> PreResNet:
    """PreResNet-depth of (depth - 2) / 6 blocks a group (the shortcuts' convolutions are not counted here)."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"preresnet{depth}: the depth of a PreResNet is 6n + 2 (8, 14, 20, 32, 56 ...)")
    return PreResNet((depth - 2) // 6, (16, 32, 64), classes, channels)


def tiny(classes: int, channels: int) -> PreResNet:
    """One narrow block a group: for 8x8 images, a laptop and tests."""
    return PreResNet(1, (8, 16, 32), classes, channels, stem=8)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Truncated normal (cut at 2 sd) whose real sd is sqrt(2 / fan_in) for conv and linear weights; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.copy_(truncated_normal(module.weight.shape, generator))
            module.weight.mul_(math.sqrt(2 / module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def truncated_normal(shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """A standard normal cut at two sd, scaled back to a real sd of 1, by its inverse distribution function.

    torch has this too, but not with the same draws in every version, and initial weights should outlive those.
    """
    within = math.erf(math.sqrt(2))  # the share of a normal within two sd
    cut_sd = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / within)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.erfinv((2 * uniform - 1) * within) * (math.sqrt(2) / cut_sd)
