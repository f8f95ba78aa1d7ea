"""Distillation on images mixed in pairs (Zhang, Cisse, Dauphin, Lopez-Paz 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from methods.baselines.moved import Moved, beside
from methods.ensemble_kd import EnsembleKD
from methods.method import check
from methods.weight_averaging import WeightAveraging


@dataclass
class MixUp(Moved):
    """x' = lam x + (1 - lam) x_perm, one lam ~ Beta(mixup, mixup) a batch; teachers are asked about x'."""

    mixup: float = 1.0  # at least 0.01: below it both shares may be drawn as 0, which would come out as halves

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        check(self.mixup >= 0.01, f"method.mixup must be at least 0.01, not {self.mixup}")

    def move(self, images, teachers, generator):
        # torch.distributions takes no generator. A Dirichlet distribution of two shares is Beta's.
        lam = torch._sample_dirichlet(torch.full((2,), self.mixup, dtype=torch.float64), generator)[0]
        order = torch.randperm(len(images), generator=generator)
        return torch.lerp(images[beside(order, images)], images, beside(lam.to(images.dtype), images))


@dataclass
class KDMixUp(MixUp, EnsembleKD):
    """A plain student matches the averaged teachers on mixed images."""

    citation: ClassVar[str] = "Zhang, Cisse, Dauphin, Lopez-Paz. mixup: Beyond Empirical Risk Minimization. ICLR, 2018."


@dataclass
class LatentBEMixUp(MixUp, WeightAveraging):
    """Member m matches teacher m on mixed images."""
