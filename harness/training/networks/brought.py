"""A network of a researcher's own: `model=MODULE:FUNCTION`, or an entry point in the group `harness.networks`.

    def wide(classes, channels, size, width=64):   # options after these three: +network.width=96
        return nn.Sequential(...)                  # pixels [B, channels, size, size] in [0, 1] -> logits [B, classes]

It normalises its input itself, where it wants to. Its initial weights come from the run's stream: it draws them anew in each call,
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

    Raises ValueError where it is no network of such images, or not one of that stream.
    """
    make = brought.load("model", name)

    def draw() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            if generator is not None:
                torch.manual_seed(generator.initial_seed())
            try:
                network = make(classes, channels, size, **options)
            except (Exception, SystemExit) as error:
                raise ValueError(f"it cannot be made: {type(error).__name__}: {error}") from error
            check_kind(network)
            # Here, where lazy layers draw their weights too.
            check_answers(network, torch.full((2, channels, size, size), 0.5), classes)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError("it has no parameter to train")
        return network

    network = draw()
    if generator is not None:
        check_fresh(network, draw())
    return nn.Sequential(OrderedDict(network=network))


def check_kind(network: Any) -> None:
    """Raise ValueError for what is no module of layers."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"it is no torch.nn.Module but {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError("it is a module of TorchScript, whose layers nobody can change: return the module itself")


@torch.no_grad()
def check_answers(network: nn.Module, images: Tensor, classes: int) -> None:
    """Raise ValueError where a network does not answer images [B, C, H, W], which it leaves as they are, with logits
    [B, classes], the same ones each time.
    """
    given = images.clone()
    try:
        logits, again = network.eval()(given), network(images.clone())
    except Exception as error:
        raise ValueError(f"it takes no images {list(images.shape)}: {type(error).__name__}: {error}") from error
    finally:
        network.train()
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != [len(images), classes]:
        raise ValueError(
            f"it answers images {list(images.shape)} with {found}, not with logits {[len(images), classes]}"
        )
    if not torch.equal(given, images):
        raise ValueError("it writes to its images, which other networks see too: let it write to a copy")
    if not torch.allclose(logits, again, equal_nan=True):
        raise ValueError("evaluating, it answers the same images in another way each time")


def check_fresh(network: nn.Module, other: nn.Module) -> None:
    """Raise ValueError where two networks of one stream have a tensor in common, or other weights."""
    one, same = (dict([*each.named_parameters(), *each.named_buffers()]) for each in (network, other))
    if {id(tensor) for tensor in one.values()} & {id(tensor) for tensor in same.values()}:
        raise ValueError("it gives the same weights to each of its networks: make them anew in each call")
    if differing := next((name for name in one if name not in same or not equal(one[name], same[name])), None):
        raise ValueError(f"it does not draw {differing} by torch's own generator, on which all of a seed's runs agree")


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN is the same as NaN, whose loss says so later."""
    return torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num())
