"""Knowledge distillation from a single teacher (Hinton, Vinyals, Dean 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.losses import blend, label_loss, match, soften
from methods.method import Method, check


@dataclass
class KD(Method):
    """A plain student matches one teacher's tempered softmax."""

    citation: ClassVar[str] = (
        "Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. NIPS Deep Learning Workshop, 2014."
    )
    capturable: ClassVar[bool] = True
    teachers: ClassVar[int | None] = 1
    alpha: float = 1.0  # weight of the distillation term; 1 - alpha is the label's
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check(0 <= self.alpha <= 1, f"method.alpha must lie in [0, 1], not {self.alpha}")
        check(self.temperature > 0, f"method.temperature must be positive, not {self.temperature}")

    def passes(self, members):
        return 3 + (self.teachers or members)

    def target(self, images, teachers):
        """What the student's softmax is asked to match, [B, K]."""
        return soften(teachers(images)[0], self.temperature)

    def loss(self, images, labels, teachers, student):
        target_BK = self.target(images, teachers)
        logits_BK = student(images)
        return blend(self.alpha, label_loss(logits_BK, labels), match(logits_BK, target_BK, self.temperature))
