"""Where the reference does otherwise than torch; imitated exactly, for the comparison only.

None of it matters to a training; all of it is far above the tolerances.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

DIFFERENCES = (
    "running variances follow the biased batch variance (torch's own follow the unbiased one)",
    "the derivative of relu at exactly 0 is 0.5 (torch's is 0)",
)
ROUNDING = 64  # in units of the last place of 1: what normalised activations are known to


class Kinks:
    """Inputs of relu within rounding of 0, whose sign, and with it the derivative, is a matter of luck.

    They are numbered in the order in which passes with a gradient meet them; those in `flipped` are taken to
    lie on the other side.
    """

    def __init__(self) -> None:
        self.restart(())

    def restart(self, flipped: Iterable[int]) -> None:
        """Count anew, with other sides."""
        self.flipped = frozenset(flipped)
        self.distances: list[float] = []  # of each doubtful input from 0

    def __deepcopy__(self, memo: dict) -> Kinks:
        return self  # one count for a network and its copies

    def derivative(self, x: Tensor) -> Tensor:
        slope = torch.heaviside(x, x.new_tensor(0.5))
        for place in ((x != 0) & (x.abs() < ROUNDING * torch.finfo(x.dtype).eps)).nonzero():
            if len(self.distances) in self.flipped:
                slope[tuple(place)] = 1 - slope[tuple(place)]
            self.distances.append(float(x[tuple(place)].abs()))
        return slope


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


class HalfReLU(nn.Module):
    """relu with derivative 0.5 at 0."""

    def __init__(self, kinks: Kinks):
        super().__init__()
        self.kinks = kinks

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return x.clamp(min=0)
        return _ReLU.apply(x, self.kinks.derivative(x.detach()))


def use_half_relu(network: nn.Module, kinks: Kinks) -> None:
    """Replace every nn.ReLU of a network, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, HalfReLU(kinks))


def use_biased_variance(network: nn.Module) -> None:
    """Turn what torch adds to each running variance into what the biased batch variance would have added."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(_remember)
            module.register_forward_hook(_correct)


def _remember(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    norm.variance_before = norm.running_var.clone()


def _correct(norm: nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> None:
    if norm.training:
        values = inputs[0].numel() // inputs[0].shape[1]  # behind each channel's variance
        kept = (1 - norm.momentum) * norm.variance_before
        # .data, because autograd holds the buffer (for evaluation mode, where its backward would need it).
        norm.running_var.data.copy_(kept + (norm.running_var - kept) * (values - 1) / values)
