"""Ensemble distribution distillation to a proxy of the teachers' distribution (Ryabinin, Malinin, Gales 2021)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.baselines.dirichlet import entropy, mean_log
from methods.method import Method, at_least_float32


class Concentrations(nn.Module):
    """log(e^z + 1) of a network's logits z: their softmax is the mean of the student's Dirichlet distribution."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return F.softplus(at_least_float32(self.network(images)))


@dataclass
class ProxyEnD2(Method):
    """A student of concentrations e^z + 1, close in reverse KL to the Dirichlet of its teachers' mean and spread."""

    citation: ClassVar[str] = (
        "Ryabinin, Malinin, Gales. Scaling Ensemble Distribution Distillation to Many Classes with Proxy Targets. "
        "NeurIPS, 2021."
    )
    capturable: ClassVar[bool] = True

    def minimum_teachers(self):
        return 2

    def passes(self, members):
        return 3 + members

    def loss(self, images, labels, teachers, student):
        mean_BK, precision_B = estimate_proxy(teachers(images).double())
        alpha_BK = student(images).double().exp() + 1
        total_B = precision_B + alpha_BK.shape[1]
        likelihood_B = (mean_BK * mean_log(alpha_BK)).sum(1)
        loss = -(likelihood_B + entropy(alpha_BK) / total_B).mean()
        return {"loss": loss, "loss_kd": loss.detach()}

    def deploy(self, student):
        return Concentrations(copy.deepcopy(student))

    def form(self, network, members):
        return Concentrations(network)


def estimate_proxy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The mean p [B, K] of teachers' softmaxes, and the precision [B] of a Dirichlet of their spread (Stirling's).

    (K - 1) / (2 sum_k p_k (log p_k - mean_m log p_mk)); teachers that all say the same have a large one, not infinite.
    logits [M, B, K] in float64.
    """
    log_p_MBK = torch.log_softmax(logits, -1)
    log_p_BK = log_p_MBK.logsumexp(0) - math.log(len(logits))
    p_BK = log_p_BK.exp()
    spread_B = (p_BK * (log_p_BK - log_p_MBK.mean(0))).sum(1).clamp_min(1e-12)
    return p_BK, (p_BK.shape[1] - 1) / (2 * spread_B)
