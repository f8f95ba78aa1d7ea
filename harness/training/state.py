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
    rates: list[float] = field(default_factory=list)  # images a second, of every epoch
    peak_bytes: int = 0  # the most that steps held on a GPU
    totals: dict[str, Tensor] = field(default_factory=dict)  # the epoch's sums of the loss and its parts
    average: RunningMean | None = None  # of the student's weights, where the recipe keeps one
    replica: nn.Module | None = None  # the student with gradients that are means over ranks, where there are several

    @property
    def learns(self) -> nn.Module:
        """What losses see."""
        return self.student if self.replica is None else self.replica

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
            "rates": self.rates,
            "peak_bytes": self.peak_bytes,
            "totals": self.totals,
            "average": None if self.average is None else self.average.module.state_dict(),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, of whatever device it was saved on; its tensors are on the CPU."""
        self.student.load_state_dict(state["student"])
        load_optimiser(self.optimiser, state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.rates, self.peak_bytes = state["rates"], state["peak_bytes"]
        self.best = Best(**state["best"])
        self.totals = {name: total.to(self.device) for name, total in state["totals"].items()}
        if state["average"] is not None:
            self.average = self.average or RunningMean(self.student)
            self.average.module.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["device_random"] is not None:
            torch.cuda.set_rng_state(state["device_random"], self.device)


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state as `load_state_dict` does, into this device's form.

    That keeps the memory format of the device which saved it, while fused optimisers walk through parameters and state as
    they lie in memory; and the learning rate is a number on a CPU, and a tensor on a GPU.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    capturable = [group.get("capturable") for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, rate, on_gpu in zip(optimiser.param_groups, rates, capturable, strict=True):
        group["lr"] = rate
        if on_gpu is not None:
            group["capturable"] = on_gpu
    for parameter, known in optimiser.state.items():
        for name, value in known.items():
            if isinstance(value, Tensor):
                like = torch.empty_like(parameter) if value.shape == parameter.shape else value
                known[name] = like.copy_(value).to(parameter.device)
