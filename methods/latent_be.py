"""LatentBE: members that share every weight W and differ by rank-one factors, W * s_m r_m^T (Nam et al. 2022).

`convert` turns any network of Conv2d and Linear layers into such a student, `LatentBE.merge` turns it back into one
plain network of the original class. Everything else of the network (batch norm too) is shared by the members.

A layer computes y = ((x * r_m) W + b) * s_m. Since this is linear in x, it runs member m's rows through the modulated
weight W * s_m r_m^T instead of scaling its inputs and outputs: the same numbers (to rounding), but the extra work is on
weights, not on activations, and so nearly free. Gradients of r and s come out of the weight's gradient.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITIALISATIONS = ("ones", "normal", "sign")
DECAYS = ("one", "none")
MERGES = ("factors", "outer")


class Selection:
    """Which members a student's layers compute: all of them on member-major rows, or a single one."""

    def __init__(self, members: int):
        self.members = members
        self.only: int | None = None


class RankOne:
    """Mix-in for a layer with a weight [out, in / groups, ...]; r [M, in], s [M, out] = 1 + (dr, ds).

    Storing the deviation from 1 makes the paper's decay 5e-4 (r - 1) plain weight decay.
    """

    weight: Tensor
    bias: Tensor | None

    def become(self, selection: Selection) -> None:
        """Add the factors to a plain layer whose class has just been changed to this one."""
        self.selection = selection
        groups = getattr(self, "groups", 1)
        like = {"device": self.weight.device, "dtype": self.weight.dtype}
        self.dr = nn.Parameter(torch.zeros(selection.members, self.weight.shape[1] * groups, **like))
        self.ds = nn.Parameter(torch.zeros(selection.members, self.weight.shape[0], **like))

    @property
    def r(self) -> Tensor:
        return 1 + self.dr

    @property
    def s(self) -> Tensor:
        return 1 + self.ds

    def modulate(self, outer: Tensor) -> Tensor:
        """W * outer, for a factor [..., groups, out / groups, in / groups] with any leading axes."""
        weight = self.weight.reshape(*outer.shape[-3:], -1)
        product = weight * outer.unsqueeze(-1)
        return product.reshape(*outer.shape[:-3], *self.weight.shape)

    def outer(self, s: Tensor, r: Tensor) -> Tensor:
        """s r^T within each group: [..., groups, out / groups, in / groups] of s [..., out], r [..., in]."""
        groups = getattr(self, "groups", 1)
        return s.unflatten(-1, (groups, -1, 1)) * r.unflatten(-1, (groups, 1, -1))

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        m = self.selection.only
        if m is not None:
            s, r = self.s[m], self.r[m]
            bias = None if self.bias is None else self.bias * s
            return self.apply_weight(x, self.modulate(self.outer(s, r)), bias)
        s, r = self.s, self.r
        weights = self.modulate(self.outer(s, r)).unbind()
        biases = [None] * len(weights) if self.bias is None else (self.bias * s).unbind()
        rows = x.chunk(len(weights))
        return torch.cat([self.apply_weight(*row) for row in zip(rows, weights, biases, strict=True)])

    @torch.no_grad()
    def fold(self, merge: str) -> None:
        """Become the plain layer of the averaged members: its weight and bias are replaced, the factors leave."""
        s, r = self.s, self.r
        outer = self.outer(s, r).mean(0) if merge == "outer" else self.outer(s.mean(0), r.mean(0))
        self.weight = nn.Parameter(self.modulate(outer), requires_grad=self.weight.requires_grad)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias * s.mean(0), requires_grad=self.bias.requires_grad)
        del self.dr, self.ds, self.selection
        self.__class__ = PLAIN[type(self)]


class RankOneConv2d(RankOne, nn.Conv2d):
    """Conv2d with factors; grouped, strided, dilated and padded ones alike."""

    def apply_weight(self, x, weight, bias):
        return self._conv_forward(x, weight, bias)


class RankOneLinear(RankOne, nn.Linear):
    """Linear with factors, on inputs [rows, ..., in]."""

    def apply_weight(self, x, weight, bias):
        return F.linear(x, weight, bias)


RANK_ONE = {nn.Conv2d: RankOneConv2d, nn.Linear: RankOneLinear}
PLAIN = {rank_one: plain for plain, rank_one in RANK_ONE.items()}


class LatentBE(nn.Module):
    """M members in one network. Calling it shows every image to every member: [B, C, H, W] -> logits [M, B, K]."""

    def __init__(self, network: nn.Module, selection: Selection):
        super().__init__()
        self.network = network
        self.selection = selection
        self.observer = Observer(network)

    @property
    def members(self) -> int:
        return self.selection.members

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images.repeat(self.members, *[1] * (images.dim() - 1)))  # rows [m*B:(m+1)*B] are member m
        return logits.unflatten(0, (self.members, -1))

    def member(self, m: int) -> Callable[[Tensor], Tensor]:
        """Member m in evaluation mode, as a network [B, C, H, W] -> [B, K] on the student's current weights."""
        return functools.partial(self.observer, m)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LatentBE:
        super()._apply(fn, recurse)  # a move to another device or dtype makes new buffers
        self.observer = Observer(self.network)
        return self

    def merge(self, merge: str = "factors") -> nn.Module:
        """One plain network of the original class with the members' averaged weights; this one stays as it is.

        merge: "factors" gives W * mean(s) mean(r)^T and b * mean(s); "outer" gives W * mean(s r^T). Batch-norm
        statistics are those of the members together.
        """
        network = copy.deepcopy(self.network)
        for layer in rank_one_layers(network):
            layer.fold(merge)
        return network

    def parameter_groups(self, weight_decay: float, decay: str = "one") -> list[dict[str, Any]]:
        """Shared weights, and factors with M times their gradient and decay towards 1 (or none).

        SGD with momentum is linear in the gradient, so M times the gradient of loss + decay/M is M times the
        learning rate: no parameter's gradient is touched.
        """
        factors = [p for layer in rank_one_layers(self.network) for p in (layer.dr, layer.ds)]
        known = {id(p) for p in factors}
        shared = [p for p in self.parameters() if id(p) not in known]
        factor_decay = weight_decay / self.members if decay == "one" else 0.0
        return [
            {"params": shared, "weight_decay": weight_decay, "lr_scale": 1.0},
            {"params": factors, "weight_decay": factor_decay, "lr_scale": float(self.members)},
        ]


class Observer:
    """A student's parameters and statistics under modules of their own that stay in evaluation mode.

    Perturbations look at single members between two training steps without switching (and walking) the student's
    modules twice a step.
    """

    def __init__(self, network: nn.Module):
        tensors = [*network.parameters(), *network.buffers()]
        self.network = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}).eval()
        self.selection = rank_one_layers(self.network)[0].selection

    def __call__(self, m: int, images: Tensor) -> Tensor:
        self.selection.only = m
        return self.network(images)


def rank_one_layers(network: nn.Module) -> list[RankOne]:
    """The converted layers, each once."""
    return [module for module in network.modules() if isinstance(module, RankOne)]


def convert(
    network: nn.Module,
    members: int,
    factors: str = "ones",
    factors_sd: float = 0.5,
    generator: torch.Generator | None = None,
) -> LatentBE:
    """A LatentBE student with the weights of `network`, which stays as it is.

    factors: "ones" (members begin equal), "normal" (mean 1, sd factors_sd), "sign" (+1 or -1).
    Raises ValueError, naming the module, where a layer has weights that rank-one factors are not defined for.
    """
    network = copy.deepcopy(network)
    selection = Selection(members)
    for name, module in list(network.named_modules()):
        if type(module) in RANK_ONE:
            module.__class__ = RANK_ONE[type(module)]
            module.become(selection)
        elif any(p.dim() > 1 for p in module.parameters(recurse=False)):
            kind = type(module).__name__
            raise ValueError(f"cannot convert {name or 'the network'} ({kind}) to members: only Conv2d and Linear have factors")
    layers = rank_one_layers(network)
    if not layers:
        raise ValueError("cannot convert a network without Conv2d or Linear layers to members")
    for factor in [p for layer in layers for p in (layer.dr, layer.ds)]:
        initialise(factor, factors, factors_sd, generator)
    return LatentBE(network, selection)


@torch.no_grad()
def initialise(factor: Tensor, kind: str, sd: float, generator: torch.Generator | None) -> None:
    """Fill a deviation from 1 [M, n]; drawn on the CPU so that every device begins alike."""
    if kind == "normal":
        factor.copy_(torch.randn(factor.shape, generator=generator) * sd)
    elif kind == "sign":
        factor.copy_(-2.0 * torch.randint(2, factor.shape, generator=generator))
    elif kind != "ones":
        raise ValueError(f"factors begin as one of {INITIALISATIONS}, not {kind!r}")
