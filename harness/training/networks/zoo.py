"""torchvision's networks, and timm's by name, with a stem that suits the size of the images.

Above SMALL pixels a network is as published. Up to SMALL, its stem keeps the resolution that a published one would
spend in its first layers: see `STEMS`. Initialisation is the network's own, drawn from the run's stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

SMALL = 64
TIMM = "timm/"

Fill = Callable[[Tensor], Tensor]
kaiming: Fill = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
truncated: Fill = partial(nn.init.trunc_normal_, std=0.02)


def replace_stem(old: nn.Conv2d, channels: int, kernel: int, stride: int, fill: Fill) -> nn.Conv2d:
    """A stem of the same width for `channels`, filled as its family fills convolutions."""
    padding = (kernel - 1) // 2 if stride < kernel or kernel == 1 else 0
    new = nn.Conv2d(channels, old.out_channels, kernel, stride, padding, bias=old.bias is not None)
    fill(new.weight)
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def resnet(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """Small images: a 3x3 stem of stride 1 and no pooling, as CIFAR's ResNets have."""
    network = published(name, classes)
    if size <= SMALL:
        network.conv1 = replace_stem(network.conv1, channels, 3, 1, kaiming)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = replace_stem(network.conv1, channels, 7, 2, kaiming)
    return network


def inverted_residuals(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """MobileNetV3 and EfficientNet. Small images: a stem of stride 1."""
    network = published(name, classes)
    stem = network.features[0]
    if size <= SMALL or channels != 3:
        stem[0] = replace_stem(stem[0], channels, 3, 1 if size <= SMALL else 2, kaiming)
    return network


def convnext(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """Small images: patches of 2x2, and single pixels below 16x16."""
    network = published(name, classes)
    stem = network.features[0]
    patch = 4 if size > SMALL else 2 if size >= 16 else 1
    if patch != 4 or channels != 3:
        stem[0] = replace_stem(stem[0], channels, patch, patch, truncated)
    return network


def vision_transformer(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """ViT-B. Small images: patches that cut a side into eight, or else seven. Raises ValueError where neither goes."""
    from torchvision.models import VisionTransformer

    patch = 16
    if size <= SMALL:
        patch = next((size // parts for parts in (8, 7) if size % parts == 0), 0)
    if not patch or size % patch:
        raise ValueError(f"{name} cannot cut images of {size}x{size} into patches; choose another size or network")
    network = VisionTransformer(
        size, patch, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=classes
    )
    if channels != 3:
        fill = partial(nn.init.trunc_normal_, std=math.sqrt(1 / (channels * patch * patch)))
        network.conv_proj = replace_stem(network.conv_proj, channels, patch, patch, fill)
    return network


def published(name: str, classes: int, **options: object) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=classes, **options)


FAMILIES = {
    "resnet18": resnet,
    "resnet34": resnet,
    "resnet50": resnet,
    "mobilenet_v3_small": inverted_residuals,
    "mobilenet_v3_large": inverted_residuals,
    "efficientnet_b0": inverted_residuals,
    "convnext_tiny": convnext,
    "vit_b_16": vision_transformer,
}


def check(name: str) -> bool:
    """Whether the name means a network of this module. Raises ValueError for a timm name that cannot be built."""
    if not name.startswith(TIMM):
        return name in FAMILIES
    if find_spec("timm") is None:
        raise ValueError(f"model={name} needs the extra package timm: pip install timm")
    import timm

    if not timm.is_model(name.removeprefix(TIMM)):
        raise ValueError(f"timm knows no model {name.removeprefix(TIMM)!r}")
    return True


def build(name: str, classes: int, channels: int, size: int, generator: torch.Generator | None) -> nn.Module:
    """The network of a checked name, its initial weights drawn from where the generator's stream begins."""
    with torch.random.fork_rng(devices=[]):
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        if name.startswith(TIMM):
            return build_timm(name.removeprefix(TIMM), classes, channels, size)
        return FAMILIES[name](name, classes, channels, size)


def build_timm(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """timm's network as timm makes it. Raises ValueError where one that is made for a size cannot take this one."""
    import timm
    import timm.layers

    about = timm.get_pretrained_cfg(name)
    options = {"img_size": size} if about is not None and about.fixed_input_size else {}
    try:
        network = timm.create_model(name, num_classes=classes, in_chans=channels, **options)
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"timm/{name} cannot be made for images of {size}x{size}: {error}") from error
    for module in network.modules():
        if type(module) is timm.layers.Linear:  # torch's, but for a cast in TorchScript; torch's can be given factors
            module.__class__ = nn.Linear
    return network
