"""Training on the labels alone: how teachers are made, and the student without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.losses import label_loss
from methods.method import Method


@dataclass
class Supervised(Method):
    """A plain network on cross-entropy with the labels."""

    capturable: ClassVar[bool] = True
    teachers: ClassVar[int | None] = 0

    def loss(self, images, labels, teachers, student):
        loss = label_loss(student(images), labels)
        return {"loss": loss, "loss_ce": loss.detach()}
