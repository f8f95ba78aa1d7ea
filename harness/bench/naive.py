"""Every method as one would first write it: factors act on activations, a perturbation runs every member.

A yardstick for `harness.bench` and an oracle for its tests: the same numbers as `methods`, to rounding.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

import methods
from methods.combined import Combined
from methods.losses import match, soften
from methods.method import Method
from methods.perturbation import Perturbation
from methods.weight_averaging import WeightAveraging

MARK = " (naive)"  # ends the names of naive forms


class RankOne(nn.Module):
    """y = ((x * r_m) W + b) * s_m on member-major rows, for a Conv2d or Linear; factors begin at 1."""

    def __init__(self, layer: nn.Module, members: int):
        super().__init__()
        self.layer = layer
        groups = getattr(layer, "groups", 1)
        self.dr = nn.Parameter(layer.weight.new_zeros(members, layer.weight.shape[1] * groups))
        self.ds = nn.Parameter(layer.weight.new_zeros(members, layer.weight.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        r, s = (self.by_row(1 + factor, x) for factor in (self.dr, self.ds))
        return self.layer(x * r) * s

    def by_row(self, factor: Tensor, x: Tensor) -> Tensor:
        """A factor [M, n] as [rows, n, 1, 1], or [rows, n] for a Linear."""
        rows = factor.repeat_interleave(len(x) // len(factor), 0)
        return rows.reshape(*rows.shape, *[1] * (x.dim() - 2))


class LatentBE(nn.Module):
    """Images [B, C, H, W] -> every member's logits [M, B, K]."""

    def __init__(self, network: nn.Module, members: int):
        super().__init__()
        self.members = members
        self.network = copy.deepcopy(network)
        for name, module in list(self.network.named_modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                parent, _, child = name.rpartition(".")
                setattr(self.network.get_submodule(parent), child, RankOne(module, members))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images.repeat(self.members, 1, 1, 1))
        return logits.unflatten(0, (self.members, -1))


class NaiveMembers:
    """A student with members, made by `LatentBE` above."""

    def student(self, network: nn.Module, members: int, generator: torch.Generator) -> nn.Module:
        return LatentBE(network, members)

    def parameter_groups(self, student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        factors = [p for layer in student.modules() if isinstance(layer, RankOne) for p in (layer.dr, layer.ds)]
        shared = [p for p in student.parameters() if all(p is not factor for factor in factors)]
        return [
            {"params": shared, "weight_decay": weight_decay, "lr_scale": 1.0},
            {"params": factors, "weight_decay": weight_decay / student.members, "lr_scale": float(student.members)},
        ]


class NaiveInputs:
    """TDiv-SDiv with every teacher and every member run, forwards and backwards, and a pair chosen afterwards."""

    def inputs(self, images, labels, teachers, student, generator):
        x = images.clone().requires_grad_()
        i, j = self.choice(len(teachers), generator)
        with torch.enable_grad():
            objective = disagreement(torch.stack([network(x) for network in teachers.networks]), i, j)
            if self.student_term:
                student.eval()
                objective = objective - disagreement(student(x), i, j)
                student.train()
            (gradient,) = torch.autograd.grad(objective, x)
        norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-30)
        direction = gradient / norm[:, None, None, None]
        return (images + self.step / 255 * math.sqrt(images[0].numel()) * direction).clamp(0, 1), labels


def disagreement(logits: Tensor, i: int, j: int) -> Tensor:
    """CE(sg p_j, p_i) of logits [M, B, K]; zeros keep every other member in the backward pass, as a mask would."""
    weights = (torch.arange(len(logits), device=logits.device) == i).float()
    target = soften(logits[j].detach(), 1.0)
    return sum(weight * match(member, target, 1.0) for weight, member in zip(weights, logits, strict=True))


class NaiveWeightAveraging(NaiveMembers, WeightAveraging):
    """One-to-one distillation."""


class NaivePerturbation(NaiveInputs, Perturbation):
    """A plain student on TDiv inputs."""


class NaiveCombined(NaiveInputs, NaiveMembers, Combined):
    """One-to-one distillation on TDiv-SDiv inputs."""


NAIVE = {WeightAveraging: NaiveWeightAveraging, Perturbation: NaivePerturbation, Combined: NaiveCombined}


def build(name: str) -> Method | None:
    """The naive form of a method with its defaults; None where the method has no other."""
    cls = methods.load(name)
    return NAIVE[cls](**asdict(cls())) if cls in NAIVE else None
