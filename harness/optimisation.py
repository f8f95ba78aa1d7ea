"""The optimiser and the learning rate of a training recipe."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

DROPS = (0.5, 0.75)  # where the schedule `step` divides the rate by ten
# What is left of the peak when a share t in [0, 1] of the steps after the warm-up is done.
SCHEDULES = {
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "linear": lambda t: 1 - t,
    "step": lambda t: 0.1 ** sum(t >= drop for drop in DROPS),
    "constant": lambda t: 1.0,
}


def learning_rate(step: int, peak: float, warmup_steps: int, total_steps: int, schedule: str = "cosine") -> float:
    """Linear from 0 at step 0 to `peak` at the end of the warm-up, then a schedule up to `total_steps`."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * SCHEDULES[schedule]((step - warmup_steps) / max(1, total_steps - warmup_steps))


def build_optimiser(groups: list[dict[str, Any]], kind: str, momentum: float, nesterov: bool) -> torch.optim.Optimizer:
    """SGD or AdamW over a method's parameter groups.

    SGD's weight decay enters before momentum, as an L2 term of the loss would; AdamW's is decoupled, and its first
    beta is the momentum. A group's lr_scale stands for a factor on its gradient and decay. Adam's step does not
    depend on a gradient's size, so there only the decay is multiplied.
    """
    if kind == "adamw":
        scaled = [{**g, "weight_decay": g["weight_decay"] * g["lr_scale"], "lr_scale": 1.0} for g in groups]
        return torch.optim.AdamW(scaled, lr=0.0, betas=(momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)


@torch.no_grad()
def average_into(average: nn.Module, module: nn.Module, weight: float) -> None:
    """average += weight * (module - average), for every parameter and floating-point buffer; counters are copied."""
    ours, theirs = average.state_dict(keep_vars=True), module.state_dict(keep_vars=True)
    floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([ours[name].data for name in floating], [theirs[name].data for name in floating], weight)
    for name in ours.keys() - set(floating):
        ours[name].data.copy_(theirs[name])


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The step's rate in every group, times the group's own factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_scale"]
