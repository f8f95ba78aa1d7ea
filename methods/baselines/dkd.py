"""Decoupled distillation: the label's class against all others, and the others among themselves (Zhao et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.ensemble_kd import EnsembleKD
from methods.losses import blend, label_loss
from methods.method import at_least_float32, check


@dataclass
class DKD(EnsembleKD):
    """A plain student matches the averaged teachers' probability of the label, and what they say of other classes."""

    citation: ClassVar[str] = "Zhao, Cui, Song, Qiu, Liang. Decoupled Knowledge Distillation. CVPR, 2022."
    capturable: ClassVar[bool] = True
    label_class: float = 1.0  # weight of the label's class against the others (the paper's alpha)
    other_classes: float = (
        8.0  # weight of the others among themselves (its beta); KD's is 1 - p, small where p is large
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_class", "other_classes"):
            check(getattr(self, name) >= 0, f"method.{name} must not be negative, not {getattr(self, name)}")

    def loss(self, images, labels, teachers, student):
        target_BK = self.target(images, teachers)
        logits_BK = student(images)
        against, among = decouple(at_least_float32(logits_BK) / self.temperature, target_BK, labels)
        distillation = self.temperature**2 * (self.label_class * against + self.other_classes * among).mean()
        return blend(self.alpha, label_loss(logits_BK, labels), distillation)


def decouple(logits: Tensor, target: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """KL divergences [B] of the label's class against all others, and of the others among themselves.

    KL(target || softmax(logits)) is the first plus 1 - p_label times the second. logits, target [B, K]; labels [B], or
    distributions [B, K], of which the largest is the label.
    """
    if labels.is_floating_point():
        labels = labels.argmax(1)
    is_label = labels[:, None] == torch.arange(target.shape[1], device=target.device)
    log_p = target.clamp_min(torch.finfo(torch.float32).tiny).log()
    log_q = F.log_softmax(logits, 1)

    def split(log: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, 2] of label and rest, and [B, K] of classes given that it is not the label (there 0)."""
        rest = log.masked_fill(is_label, -torch.inf).logsumexp(1, keepdim=True)
        label = log.masked_fill(~is_label, 0).sum(1, keepdim=True)
        return torch.cat([label, rest], 1), (log - rest).masked_fill(is_label, 0)

    (binary_p, others_p), (binary_q, others_q) = split(log_p), split(log_q)
    among = (others_p.exp().masked_fill(is_label, 0) * (others_p - others_q)).sum(1)
    return (binary_p.exp() * (binary_p - binary_q)).sum(1), among
