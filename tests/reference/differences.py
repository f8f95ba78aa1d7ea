"""The two things that the reference does otherwise than torch, imitated exactly for the comparison only.

Neither matters to a training; both are far above the tolerances.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DIFFERENCES = (
    "running variances follow the biased batch variance (torch's own follow the unbiased one)",
    "the derivative of relu at exactly 0 is 0.5 (torch's is 0)",
)


class _HalfReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * torch.heaviside(x, x.new_tensor(0.5))


class HalfReLU(nn.Module):
    """relu with derivative 0.5 at 0."""

    def forward(self, x: Tensor) -> Tensor:
        return _HalfReLU.apply(x)


def use_half_relu(network: nn.Module) -> None:
    """Replace every nn.ReLU of a network, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, HalfReLU())


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
