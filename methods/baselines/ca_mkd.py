"""Confidence-aware distillation: of every image, more from the teachers that know its label (Zhang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.losses import diverge, label_loss, soften
from methods.method import Method, check


@dataclass
class CAMKD(Method):
    """A plain student on its labels and on teachers weighted by 1 - softmax_m(CE(z_m, y)), image by image.

    Of the paper's two parts this is that of the logits; the other one matches features.
    """

    citation: ClassVar[str] = "Zhang, Chen, Wang. Confidence-Aware Multi-Teacher Knowledge Distillation. ICASSP, 2022."
    capturable: ClassVar[bool] = True
    temperature: float = 4.0
    weight: float = 1.0  # of the distillation term; the label's is 1

    def __post_init__(self) -> None:
        check(self.temperature > 0, f"method.temperature must be positive, not {self.temperature}")
        check(self.weight >= 0, f"method.weight must not be negative, not {self.weight}")

    def minimum_teachers(self):
        return 2

    def passes(self, members):
        return 3 + members

    def loss(self, images, labels, teachers, student):
        logits_MBK = teachers(images)
        logits_BK = student(images)
        label = label_loss(logits_BK, labels)
        losses_MB = diverge(logits_BK, soften(logits_MBK, self.temperature), self.temperature)
        distillation = (trust(logits_MBK, labels) * losses_MB).sum(0).mean()
        loss = label + self.weight * distillation
        return {"loss": loss, "loss_ce": label.detach(), "loss_kd": distillation.detach()}


def trust(logits: Tensor, labels: Tensor) -> Tensor:
    """Weights [M, B] of teachers, which sum to 1 for every image: the smaller a teacher's loss, the larger."""
    log_p = torch.log_softmax(logits, -1)
    if labels.is_floating_point():
        losses = -(labels * log_p).sum(-1)
    else:
        losses = -log_p.gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]
    return (1 - torch.softmax(losses, 0)) / (len(logits) - 1)
