"""MixUp (Zhang et al. 2018), batched on the device: images and labels are mixed in pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.data.batches import Own, all_of
from harness.training.data.transfer import send


class MixUp:
    """x' = lam x + (1 - lam) x_perm, and the same of the labels; one lam ~ Beta(alpha, alpha) a batch.

    Whoever is given the batch sees mixed images only: teachers too.
    """

    stream = "mixup"

    def __init__(self, alpha: float, classes: int, whole: Callable[[Tensor], Tensor] = lambda values: values):
        """whole: the batch's values, of those that each process has of its own rows."""
        self.alpha, self.classes, self.whole = alpha, classes, whole

    def draw(
        self, generator: torch.Generator, steps: int, batch: int, device: torch.device, own: Own = all_of
    ) -> list[tuple[Tensor, Tensor]]:
        """lam of every step, and which image of its batch each of the rows is mixed with, on the device."""
        # torch's own sampler of this distribution takes no generator.
        beta = np.random.default_rng(generator.initial_seed()).beta(self.alpha, self.alpha, steps)
        order = own(send(torch.rand((steps, batch), generator=generator), device).argsort(stable=True))
        return list(zip(send(torch.from_numpy(beta).float(), device), order, strict=True))

    def __call__(self, images: Tensor, labels: Tensor, draws: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mixed images, and labels [B] as distributions [B, K]."""
        lam, order = draws
        soft = F.one_hot(labels, self.classes).float()
        others, their_labels = self.whole(images)[order], self.whole(soft)[order]
        return torch.lerp(others, images, lam.to(images)), torch.lerp(their_labels, soft, lam)
