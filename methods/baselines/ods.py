"""Distillation on inputs that change a teacher's answer in a random direction (Tashiro et al. 2020; Nam et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.baselines.moved import Moved, beside
from methods.diversify import take_step
from methods.ensemble_kd import EnsembleKD
from methods.losses import soften
from methods.method import check
from methods.weight_averaging import WeightAveraging


@dataclass
class ODS(Moved):
    """One normalised step up sum_k w_k softmax(z_m / T)_k: a random teacher m a batch, w ~ U(-1, 1)^K an image."""

    step: float = 1.0  # root-mean-square size of the step, in grey levels (1/255)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        check(self.step >= 0, f"method.step must not be negative, not {self.step}")

    def passes(self, members):
        return super().passes(members) + 2  # of one teacher, forwards and back to its input

    def move(self, images, teachers, generator):
        m = int(torch.randint(len(teachers), (), generator=generator))
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            p_BK = soften(teachers.member(m)(images), self.temperature)
            w_BK = 2 * torch.rand(p_BK.shape, generator=generator, dtype=p_BK.dtype) - 1
            (gradient,) = torch.autograd.grad((beside(w_BK, images) * p_BK).sum(), images)
        return take_step(images.detach(), gradient, self.step * self.share(p_BK.detach()))

    def share(self, p_BK: Tensor) -> Tensor | float:
        """Of the step, for each image [B, 1, 1, 1]."""
        return 1.0


@dataclass
class ConfODS(ODS):
    """The same, where the teacher is sure of an image; less far the less it is."""

    def share(self, p_BK):
        return p_BK.amax(1)[:, None, None, None]


@dataclass
class KDODS(ODS, EnsembleKD):
    """A plain student matches the averaged teachers on ODS inputs."""

    citation: ClassVar[str] = "Nam, Yoon, Lee, Lee. Diversity Matters When Learning From Ensembles. NeurIPS, 2021."


@dataclass
class KDConfODS(ConfODS, EnsembleKD):
    """A plain student matches the averaged teachers on ConfODS inputs."""

    citation: ClassVar[str] = "Nam, Yoon, Lee, Lee. Diversity Matters When Learning From Ensembles. NeurIPS, 2021."


@dataclass
class LatentBEODS(ODS, WeightAveraging):
    """Member m matches teacher m on ODS inputs."""


@dataclass
class LatentBEConfODS(ConfODS, WeightAveraging):
    """Member m matches teacher m on ConfODS inputs."""
