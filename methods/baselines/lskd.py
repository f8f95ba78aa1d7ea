"""Distillation of standardised logits: what they say, not how large they are (Sun et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.ensemble_kd import EnsembleKD
from methods.losses import blend, label_loss, match
from methods.method import at_least_float32

EPSILON = 1e-7


@dataclass
class LSKD(EnsembleKD):
    """A plain student matches the averaged teachers, the logits of each and its own standardised before they are tempered."""

    citation: ClassVar[str] = "Sun, Ren, Li, Wang, Cao. Logit Standardization in Knowledge Distillation. CVPR, 2024."
    capturable: ClassVar[bool] = True

    def target(self, images, teachers):
        return super().target(images, lambda images: standardise(teachers(images)))

    def loss(self, images, labels, teachers, student):
        target_BK = self.target(images, teachers)
        logits_BK = student(images)
        distillation = match(standardise(logits_BK), target_BK, self.temperature)
        return blend(self.alpha, label_loss(logits_BK, labels), distillation)


def standardise(logits: Tensor) -> Tensor:
    """(z - mean) / (sd + 1e-7) over the last axis, sd of K - 1 degrees of freedom."""
    logits = at_least_float32(logits)
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + EPSILON)
