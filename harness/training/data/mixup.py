"""MixUp (Zhang et al. 2018), batched on the device: images and labels are mixed in pairs."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.data.transfer import send


class MixUp:
    """x' = lam x + (1 - lam) x_perm, and the same of the labels; one lam ~ Beta(alpha, alpha) a batch.

    Whoever is given the batch sees mixed images only: teachers too.
    """

    stream = "mixup"

    def __init__(self, alpha: float, classes: int):
        self.alpha, self.classes = alpha, classes

    def draw(
        self, generator: torch.Generator, steps: int, batch: int, device: torch.device
    ) -> list[tuple[Tensor, Tensor]]:
        """lam and a permutation [B] of every step, on the device."""
        # torch's own sampler of this distribution takes no generator.
        beta = np.random.default_rng(generator.initial_seed()).beta(self.alpha, self.alpha, steps)
        order = send(torch.rand((steps, batch), generator=generator), device).argsort(stable=True)
        return list(zip(send(torch.from_numpy(beta).float(), device), order, strict=True))

    def __call__(self, images: Tensor, labels: Tensor, draws: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mixed images, and labels [B] as distributions [B, K]."""
        lam, order = draws
        soft = F.one_hot(labels, self.classes).float()
        return torch.lerp(images[order], images, lam.to(images)), torch.lerp(soft[order], soft, lam)
