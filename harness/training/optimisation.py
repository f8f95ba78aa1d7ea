"""The optimiser and the learning rate of a training recipe."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

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


def build_optimiser(
    groups: list[dict[str, Any]], kind: str, momentum: float, nesterov: bool, device: torch.device
) -> torch.optim.Optimizer:
    """SGD or AdamW over a method's parameter groups on a device.

    SGD's weight decay enters before momentum, as an L2 term of the loss would; AdamW's is decoupled, and its first
    beta is the momentum. A group's lr_scale stands for a factor on its gradient and decay. Adam's step does not
    depend on a gradient's size, so there only the decay is multiplied.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:  # there, so that a recorded step reads the rate of the day
        groups = [{**group, "lr": torch.zeros((), device=device)} for group in groups]
    if kind == "adamw":
        scaled = [{**g, "weight_decay": g["weight_decay"] * g["lr_scale"], "lr_scale": 1.0} for g in groups]
        return torch.optim.AdamW(scaled, lr=0.0, betas=(momentum, 0.999), fused=True, capturable=on_gpu)
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)


class RunningMean:
    """A mean over time of a module's parameters and floating-point buffers, as a module of its own; counters are copied.

    It begins as the module is now.
    """

    def __init__(self, module: nn.Module):
        self.module = copy.deepcopy(module)
        # Collected once: a step then costs no Python for each tensor.
        sides = [list(each.state_dict().values()) for each in (self.module, module)]
        self.floating = [[tensor for tensor in side if tensor.is_floating_point()] for side in sides]
        self.counters = [[tensor for tensor in side if not tensor.is_floating_point()] for side in sides]

    @torch.no_grad()
    def add(self, weight: float) -> None:
        """mean += weight * (module - mean)."""
        torch._foreach_lerp_(*self.floating, weight)
        if self.counters[0]:
            torch._foreach_copy_(*self.counters)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The step's rate in every group, times the group's own factor."""
    for group in optimiser.param_groups:
        scaled = rate * group["lr_scale"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled
