"""Adaptive ensemble distillation: teachers weighted so that their gradients agree (Du et al. 2020)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.losses import diverge, label_loss, soften
from methods.method import Method, at_least_float32, check

MOST = 10  # teachers: the weights are found among some 2^M candidates


@dataclass
class AEKD(Method):
    """A plain student on its labels and on weighted teachers, weights of the shortest combination of their gradients."""

    citation: ClassVar[str] = (
        "Du, You, Li, Wu, Wang, Qian, Zhang. Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient "
        "Space. NeurIPS, 2020."
    )
    capturable: ClassVar[bool] = True
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

    def student(self, network, members, generator):
        check(members <= MOST, f"ae_kd weighs up to {MOST} teachers, not {members}")
        return network

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
    """Weights [M] in [0, cap], of sum 1, of the shortest weighted sum of vectors [M, n].

    Exact, in a fixed number of operations that never wait for a device: once it is known which weights lie at 0 and which
    at the cap, the others solve a linear system. All these are solved, and the shortest of those within bounds is it.
    """
    exact = vectors.double()
    gram, (at_cap, is_free) = exact @ exact.T, corners(len(vectors), cap)
    gram = gram / gram.diagonal().mean().clamp_min(1e-300)
    ones, free = torch.ones_like(gram[0]), is_free.to(gram.device, non_blocking=True)[..., None]
    # Rows: of a free weight, gradient = multiplier; of another, weight = bound; and their sum.
    ridge = 1e-11 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)  # where vectors depend on one another
    system = torch.where(
        free, torch.column_stack([gram + ridge, ones]), torch.column_stack([torch.eye(len(gram)).to(gram), 0 * ones])
    )
    bounds = cap * at_cap.to(gram)
    total = torch.cat([ones, 0 * ones[:1]]).expand(len(system), 1, -1)
    right = torch.cat([bounds, torch.ones_like(bounds[:, :1])], 1)
    found = torch.linalg.solve_ex(torch.cat([system, total], 1), right)[0][:, :-1]
    within = ((found >= -1e-9) & (found <= cap + 1e-9)).all(1)
    lengths = torch.einsum("sm,mn,sn->s", found, gram, found).masked_fill(~within, torch.inf)
    return found[lengths.argmin()].clamp(0, cap).to(vectors.dtype)


def corners(count: int, cap: float) -> tuple[Tensor, Tensor]:
    """Which of so many weights lie at the cap and which between 0 and the cap, in every way that leaves a sum of 1."""
    ways = [way for way in itertools.product((0, 1, 2), repeat=count) if 1 in way and way.count(2) * cap < 1 + 1e-9]
    states = torch.tensor(ways)
    return states == 2, states == 1
