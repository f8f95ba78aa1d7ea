"""Several networks as one, for inference: the mean of their softmaxes (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from methods.method import at_least_float32


class Members(nn.Module):
    """Networks side by side: images [B, C, H, W] -> logits [M, B, K]."""

    def __init__(self, networks: Iterable[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks])


class Averaged(nn.Module):
    """The logs of the mean of members' softmaxes [B, K], of a network that gives the logits [M, B, K] of all."""

    def __init__(self, members: nn.Module):
        super().__init__()
        self.members = members

    def forward(self, images: Tensor) -> Tensor:
        log_p = torch.log_softmax(at_least_float32(self.members(images)), -1)
        return log_p.logsumexp(0) - math.log(len(log_p))
