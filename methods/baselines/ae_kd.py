"""Adaptive ensemble distillation: teachers weighted so that their gradients agree (Du et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.losses import diverge, label_loss, soften
from methods.method import Method, at_least_float32, check

EVEN = 1e-8  # what uneven weights cost, by the mean square of the vectors


@dataclass
class AEKD(Method):
    """A plain student on its labels and on weighted teachers, weights of the shortest combination of their gradients."""

    citation: ClassVar[str] = (
        "Du, You, Li, Wu, Wang, Qian, Zhang. Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient "
        "Space. NeurIPS, 2020."
    )
    capturable: ClassVar[bool] = True
    divisible: ClassVar[bool] = False  # the weights are the whole batch's
    most_teachers: ClassVar[int | None] = 8  # whose weights are found among 3^M candidates
    temperature: float = 4.0
    weight: float = 0.9  # of the distillation term; the label's is 1
    cap: float = 0.6  # no teacher's weight is larger (the paper's C); 1 / M: all are equal

    def __post_init__(self) -> None:
        check(self.temperature > 0, f"method.temperature must be positive, not {self.temperature}")
        check(self.weight >= 0, f"method.weight must not be negative, not {self.weight}")
        check(0 < self.cap <= 1, f"method.cap must lie in (0, 1], not {self.cap}")

    def minimum_teachers(self):
        return math.ceil(1 / self.cap - 1e-9)

    def passes(self, members):
        return 3 + members

    def loss(self, images, labels, teachers, student):
        target_MBK = soften(teachers(images), self.temperature)
        logits_BK = at_least_float32(student(images))
        label = label_loss(logits_BK, labels)
        losses_M = diverge(logits_BK, target_MBK, self.temperature).mean(1)
        # The gradient of an image's loss by the student's logits is T (q - p_m).
        gradients_MK = self.temperature * (soften(logits_BK.detach(), self.temperature) - target_MBK).mean(1)
        distillation = (shortest(gradients_MK, self.cap) * losses_M).sum()
        loss = label + self.weight * distillation
        return {"loss": loss, "loss_ce": label.detach(), "loss_kd": distillation.detach()}


def shortest(vectors: Tensor, cap: float) -> Tensor:
    """Weights [M] in [0, cap], of sum 1, of the shortest weighted sum of vectors [M, n]; of several such, the most even.

    Exact, and without a wait for the device: once it is known which weights lie at 0 and which at the cap, the others solve
    a linear system. All these systems are solved; of the solutions within bounds the shortest is it.
    """
    count, exact = len(vectors), vectors.double()
    gram = exact @ exact.T
    gram = gram / gram.diagonal().mean().clamp_min(1e-300)
    one = torch.eye(count, dtype=gram.dtype, device=gram.device)
    gram = gram + EVEN * one
    # Of every weight whether it lies at 0, at the cap, or is free: the digits of a number to the base 3.
    ways = torch.arange(3**count, device=gram.device)[:, None] // 3 ** torch.arange(count, device=gram.device) % 3
    free = (ways == 2)[..., None]
    # A free weight's row: its gradient is a multiplier, the last unknown. Another's: it is its bound. Below: the sum is 1.
    rows = torch.where(free, F.pad(gram, (0, 1), value=1), F.pad(one, (0, 1)))
    total = F.pad(torch.ones_like(rows[:, :1, 1:]), (0, 1))
    right = F.pad(cap * (ways == 1).to(gram), (0, 1), value=1)
    found = torch.linalg.solve_ex(torch.cat([rows, total], 1), right)[0][:, :-1]
    within = ((found >= -1e-9) & (found <= cap + 1e-9)).all(1) & ((found.sum(1) - 1).abs() < 1e-9)
    lengths = torch.einsum("sm,mn,sn->s", found, gram, found)
    best = torch.where(within, lengths, torch.inf).argmin(0, keepdim=True)
    return found.index_select(0, best)[0].clamp(0, cap).to(vectors.dtype)
