"""The optimiser and the learning rate of a training recipe."""

from __future__ import annotations

import math
from typing import Any

import torch


def learning_rate(step: int, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear from 0 at step 0 to `peak` at the end of the warm-up, then half a cosine down to 0 at `total_steps`."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))


def build_optimiser(groups: list[dict[str, Any]], momentum: float, nesterov: bool) -> torch.optim.SGD:
    """SGD over a method's parameter groups; weight decay enters before momentum, as an L2 term of the loss would."""
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The step's rate in every group, times the group's own factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_scale"]
