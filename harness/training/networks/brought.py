"""A network of a researcher's own: `model=MODULE:FUNCTION`, or an entry point in the group `harness.networks`.

    def wide(classes, channels, size, width=64):   # options after these three: +network.width=96
        return nn.Sequential(...)                  # pixels [B, channels, size, size] in [0, 1] -> logits [B, classes]

It normalises its input itself, where it wants to. Its initial weights come from the run's stream, as long as it draws them
by torch. It becomes members as any other network does, or is refused by the name of the layer that cannot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import brought


def build(
    name: str, classes: int, channels: int, size: int, options: Mapping[str, Any], generator: torch.Generator | None
) -> nn.Sequential:
    """The network that a name brings, its initial weights drawn from where the generator's stream begins.

    Raises ValueError where it is no network of such images.
    """
    make = brought.load("model", name)
    with torch.random.fork_rng(devices=[]):
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        try:
            network = make(classes, channels, size, **options)
        except Exception as error:
            raise ValueError(f"it cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"it is no torch.nn.Module but {type(network).__name__}")
    check_answers(network, torch.zeros(2, channels, size, size), classes)
    return nn.Sequential(OrderedDict(network=network))


@torch.no_grad()
def check_answers(network: nn.Module, images: Tensor, classes: int) -> None:
    """Raise ValueError where a network does not answer images [B, C, H, W] with logits [B, classes]."""
    try:
        logits = network.eval()(images)
    except Exception as error:
        raise ValueError(f"it takes no images {list(images.shape)}: {type(error).__name__}: {error}") from error
    finally:
        network.train()
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != [len(images), classes]:
        raise ValueError(
            f"it answers images {list(images.shape)} with {found}, not with logits {[len(images), classes]}"
        )
