"""Networks by name: `build("wrn28_4", ...)` is a plain network on images in [0, 1]."""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.config.brought import check_call, target
from harness.training.networks import brought, preresnet, zoo

OWN = ("preresnet_tiny", "preresnet20", "preresnet32", "preresnet56", "wrn16_2", "wrn28_4", "wrn28_10")
EXAMPLES = (*OWN, *zoo.FAMILIES)


class Normalise(nn.Module):
    """(x - mean) / sd per channel, inside the network, so that every user of it feeds pixels in [0, 1]."""

    def __init__(self, mean: Sequence[float], sd: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("sd", torch.tensor(list(sd)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.sd


def architecture(name: str, classes: int, channels: int) -> nn.Module:
    """The bare network of a name of this package's own. Raises ValueError where the name means none."""
    if name == "preresnet_tiny":
        return preresnet.tiny(classes, channels)
    if found := re.fullmatch(r"preresnet(\d+)", name):
        return preresnet.preresnet(int(found[1]), classes, channels)
    if found := re.fullmatch(r"wrn(\d+)_(\d+)", name):
        return preresnet.wide_resnet(int(found[1]), int(found[2]), classes, channels)
    raise ValueError(f"unknown model {name!r}")


def check(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise ValueError where a name means no network, or none with these options; builds none."""
    if target("model", name):
        check_call("model", name, options or {}, 10, 3, 32)
        return
    check_own(name)
    if options:
        raise ValueError(f"model={name} has no options, so none by the name of {', '.join(options)}")


@functools.cache
def check_own(name: str) -> None:
    if zoo.check(name):
        return
    with torch.device("meta"):
        architecture(name, 10, 3)


def build(
    name: str,
    classes: int,
    mean: Sequence[float],
    sd: Sequence[float],
    generator: torch.Generator | None = None,
    size: int = 32,
    options: Mapping[str, Any] | None = None,
) -> nn.Sequential:
    """`normalise` (mean and sd per channel), then `network` for images of `size`, drawn from the generator's stream. A
    network that is brought (with `options`) is all there is.

    Raises ValueError where the name means no network or the network does not take that size.
    """
    if target("model", name):
        return brought.build(name, classes, len(mean), size, options or {}, generator)
    if zoo.check(name):
        network = zoo.build(name, classes, len(mean), size, generator)
    else:
        network = architecture(name, classes, len(mean))
        preresnet.initialise(network, generator)
    return nn.Sequential(OrderedDict(normalise=Normalise(mean, sd), network=network))
