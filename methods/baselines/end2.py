"""Ensemble distribution distillation: a student that says how its teachers spread (Malinin et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.baselines.dirichlet import log_density
from methods.losses import soften
from methods.method import Method, at_least_float32, check


@dataclass
class EnD2(Method):
    """A student of concentrations e^{z/T}, under which its teachers' tempered probabilities are likely.

    T stays for a third of the training, falls linearly to 1 in the next, and is 1 in the last: the network that is
    deployed answers at 1. No step can be captured, each has a T of its own.
    """

    citation: ClassVar[str] = "Malinin, Mlodozeniec, Gales. Ensemble Distribution Distillation. ICLR, 2020."
    temperature: float = 10.0  # at the start
    smoothing: float = 1e-4  # share of the teachers' probabilities that is spread evenly: their logs stay finite

    def __post_init__(self) -> None:
        check(self.temperature >= 1, f"method.temperature must be at least 1, not {self.temperature}")
        check(0 < self.smoothing < 1, f"method.smoothing must lie in (0, 1), not {self.smoothing}")

    def passes(self, members):
        return 3 + members

    def cool(self) -> float:
        """The temperature of this step."""
        return 1 + (self.temperature - 1) * min(1.0, max(0.0, 2 - 3 * self.progress))

    def loss(self, images, labels, teachers, student):
        temperature = self.cool()
        p_MBK = soften(teachers(images).double(), temperature)
        p_MBK = (1 - self.smoothing) * p_MBK + self.smoothing / p_MBK.shape[-1]
        alpha_BK = (at_least_float32(student(images)).double() / temperature).exp()
        loss = -log_density(alpha_BK, p_MBK.log()).mean()
        return {"loss": loss, "loss_kd": loss.detach()}
