"""Perturbations of the input: one normalised gradient step (Nam et al. 2022, equation 9; Nam et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from methods.losses import match, soften

Network = Callable[[Tensor], Tensor]


def draw_pair(members: int, generator: torch.Generator) -> tuple[int, int]:
    """One ordered pair (i, j), i != j, uniformly, from a CPU generator."""
    i, j = divmod(int(torch.randint(members * (members - 1), (), generator=generator)), members - 1)
    return i, j + (j >= i)


def cross_divergence(network_i: Network, network_j: Network, images: Tensor) -> Tensor:
    """CE(sg p_j, p_i) at T = 1, a mean over the batch; only network i carries a gradient."""
    with torch.no_grad():
        target_BK = soften(network_j(images), 1.0)
    return match(network_i(images), target_BK, 1.0)


def disagreement(
    i: int, j: int, teacher: Callable[[int], Network], student: Callable[[int], Network] | None = None
) -> Callable[[Tensor], Tensor]:
    """TDiv of the pair (i, j), or TDiv-SDiv where the student's members are given: images -> scalar to ascend."""

    def objective(images: Tensor) -> Tensor:
        value = cross_divergence(teacher(i), teacher(j), images)
        if student is not None:
            value = value - cross_divergence(student(i), student(j), images)
        return value

    return objective


def ascend(images: Tensor, objective: Callable[[Tensor], Tensor], step: float) -> Tensor:
    """x' = clip_[0,1](x + step/255 sqrt(D) g/||g||), g = the objective's gradient, norm per image.

    images [B, C, H, W]. Where the gradient vanishes the image stays as it is. Parameters get no gradient.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective(images), images)
    return take_step(images.detach(), gradient, step)


def take_step(images: Tensor, gradient: Tensor, step: float | Tensor) -> Tensor:
    """The normalised step of `ascend` for a gradient [B, C, H, W]; `step` may be one per image [B, 1, 1, 1]."""
    values = gradient[0].numel()
    # Scaling by the largest value first keeps the squares of tiny gradients from underflowing to zero.
    peak = gradient.abs().amax((1, 2, 3), keepdim=True)
    gradient = gradient / torch.where(peak > 0, peak, 1)
    norm = gradient.square().sum((1, 2, 3), keepdim=True).sqrt()
    direction = gradient / torch.where(norm > 0, norm, 1)
    return (images + step / 255 * math.sqrt(values) * direction).clamp(0, 1)
