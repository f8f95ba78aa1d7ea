"""What a training has come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.training.optimisation import RunningMean


@dataclass
class Best:
    """The chosen checkpoint: the earliest of the best validation accuracies."""

    epoch: int = 0
    acc: float = -1.0
    student: dict[str, Tensor] = field(default_factory=dict)  # the state of the student that was trained


@dataclass
class Training:
    """What a training has come to; everything that a checkpoint needs."""

    student: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: Best = field(default_factory=Best)
    seconds: float = 0.0  # spent in steps, over all attempts
    totals: dict[str, Tensor] = field(default_factory=dict)  # the epoch's sums of the loss and its parts
    average: RunningMean | None = None  # of the student's weights, where the recipe keeps one

    @property
    def judged(self) -> nn.Module:
        """What is validated and deployed: the average, or else the student itself."""
        return self.student if self.average is None else self.average.module

    @property
    def device(self) -> torch.device:
        return next(self.student.parameters()).device

    def state(self) -> dict[str, Any]:
        return {
            "student": self.student.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": vars(self.best),
            "seconds": self.seconds,
            "totals": self.totals,
            "average": None if self.average is None else self.average.module.state_dict(),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["student"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.totals = Best(**state["best"]), state["totals"]
        if state["average"] is not None:
            self.average = self.average or RunningMean(self.student)
            self.average.module.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["device_random"] is not None:
            torch.cuda.set_rng_state(state["device_random"], self.device)
