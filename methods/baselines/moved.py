"""Students that are shown other images than those drawn; the label's term, where there is one, is of those drawn.

As in Nam, Yoon, Lee, Lee 2021, where the perturbations take part in distillation alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.losses import blend, label_loss, match
from methods.method import Teachers


@dataclass
class Moved:
    """A mix-in for KD and what inherits from it: teachers and student are compared on `move`'s images.

    What is drawn for each image is drawn anew in every step, so that no step can be captured.
    """

    divisible: ClassVar[bool] = False

    def move(self, images: Tensor, teachers: Teachers, generator: torch.Generator) -> Tensor:
        """Other images [B, C, H, W] in the place of these; draws from a CPU generator."""
        raise NotImplementedError

    def passes(self, members):
        own = super().passes(members)
        return own if self.alpha == 1 else own + own - (self.teachers or members)  # the student sees both

    def inputs(self, images, labels, teachers, student, generator):
        moved = self.move(images, teachers, generator)
        if self.alpha == 1:
            return moved, labels
        return torch.cat([images, moved]), torch.cat([labels, labels])

    def loss(self, images, labels, teachers, student):
        if self.alpha == 1:
            return super().loss(images, labels, teachers, student)
        target = self.target(images.chunk(2)[1], teachers)
        clean, moved = student(images).chunk(2, -2)
        return blend(self.alpha, label_loss(clean, labels.chunk(2)[0]), match(moved, target, self.temperature))


def beside(values: Tensor, images: Tensor) -> Tensor:
    """Values of the host on the images' device, which a GPU gets in its own time."""
    if images.device.type == "cuda":
        return values.pin_memory().to(images.device, non_blocking=True)
    return values
