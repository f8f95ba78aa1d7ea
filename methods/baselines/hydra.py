"""One body and a head for every teacher (Tran et al. 2020)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.ensemble import Averaged
from methods.kd import KD
from methods.losses import soften


class Heads(nn.Module):
    """A network whose last linear layer has become M of them: images [B, C, H, W] -> logits [M, B, K].

    Raises ValueError where it has no linear layer.
    """

    def __init__(self, network: nn.Module, members: int, generator: torch.Generator | None = None):
        super().__init__()
        self.network, self.members = copy.deepcopy(network), members
        layers = [(name, module) for name, module in self.network.named_modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise ValueError("a network without a linear layer has no head to be given several of")
        name, head = layers[-1]
        self.network.set_submodule(name, widen(head, members, generator))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).unflatten(-1, (self.members, -1)).movedim(-2, 0)


@torch.no_grad()
def widen(head: nn.Linear, members: int, generator: torch.Generator | None) -> nn.Linear:
    """M heads in one layer, each drawn anew with the spread of the weights of `head`, on the CPU for any device."""
    weight = head.weight
    wide = nn.Linear(head.in_features, members * head.out_features, head.bias is not None, weight.device, weight.dtype)
    drawn = torch.randn(wide.weight.shape, generator=generator).to(weight)
    wide.weight.copy_(weight.mean() + weight.std() * drawn)
    if head.bias is not None:
        wide.bias.copy_(head.bias.repeat(members))
    return wide


@dataclass
class Hydra(KD):
    """Head m matches teacher m; the heads' softmaxes are averaged for inference."""

    citation: ClassVar[str] = (
        "Tran, Veeling, Roth, Swiatkowski, Dillon, Snoek, Mandt, Salimans, Nowozin, Jenatton. Hydra: Preserving Ensemble "
        "Diversity for Model Distillation. arXiv 2001.04694, 2020."
    )
    capturable: ClassVar[bool] = True
    teachers: ClassVar[int | None] = None

    def student(self, network, members, generator):
        return Heads(network, members, generator)

    def target(self, images, teachers):
        return soften(teachers(images), self.temperature)  # [M, B, K]: one target for each head

    def deploy(self, student):
        return Averaged(copy.deepcopy(student))

    def form(self, network, members):
        return Averaged(Heads(network, members))
