"""Distillation on noisy inputs (the control of Nam, Yoon, Lee, Lee 2021 for perturbations that look at teachers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from methods.baselines.moved import Moved, beside
from methods.ensemble_kd import EnsembleKD
from methods.method import check
from methods.weight_averaging import WeightAveraging


@dataclass
class Gaussian(Moved):
    """x' = clip(x + sd/255 N(0, 1)), every value of every image."""

    sd: float = 1.0  # in grey levels (1/255)

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        check(self.sd >= 0, f"method.sd must not be negative, not {self.sd}")

    def move(self, images, teachers, generator):
        noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
        return (images + self.sd / 255 * beside(noise, images)).clamp(0, 1)


@dataclass
class KDGaussian(Gaussian, EnsembleKD):
    """A plain student matches the averaged teachers on noisy inputs."""

    citation: ClassVar[str] = "Nam, Yoon, Lee, Lee. Diversity Matters When Learning From Ensembles. NeurIPS, 2021."


@dataclass
class LatentBEGaussian(Gaussian, WeightAveraging):
    """Member m matches teacher m on noisy inputs."""
