"""LatentBE: members that share every weight W and differ by rank-one factors, W * s_m r_m^T (Nam et al. 2022).

`convert` turns any network of Conv2d, Linear and MultiheadAttention layers into such a student, `LatentBE.merge` turns
it back into one plain network of the original class. Everything else of the network (norms, embeddings) is shared by
the members.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.rank_one import RANK_ONE, RankOne, Selection

INITIALISATIONS = ("ones", "normal", "sign")
DECAYS = ("one", "none")
MERGES = ("factors", "outer")
# Weights of these do not mix features, so that members share them whatever their shape.
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
EMBEDDINGS = re.compile("token|pos|scale|embed")  # names of plain parameters such as ViT's class_token, pos_embedding
# These read the weights of the layers inside them when they are evaluated, past any factors.
BYPASSING = (nn.TransformerEncoderLayer, nn.TransformerEncoder)


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

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile both ways of looking at the members, in place (see torch.nn.Module.compile)."""
        super().compile(*args, **options)
        self.observer.compile(*args, **options)

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

    def extract(self, m: int) -> nn.Module:
        """Member m as a plain network of the original class, with weights of its own."""
        network = copy.deepcopy(self.network)
        for layer in rank_one_layers(network):
            for name, values in layer.own().items():
                setattr(layer, name, nn.Parameter(values[m : m + 1].detach()))
            layer.fold("factors")
        return network

    def parameter_groups(self, weight_decay: float, decay: str = "one") -> list[dict[str, Any]]:
        """Shared weights, and factors with M times their gradient and decay towards 1 (or none).

        SGD with momentum is linear in the gradient, so M times the gradient of loss + decay/M is M times the
        learning rate: no parameter's gradient is touched.
        """
        factors = [p for layer in rank_one_layers(self.network) for p in layer.own().values()]
        known = {id(p) for p in factors}
        shared = [p for p in self.parameters() if id(p) not in known]
        factor_decay = weight_decay / self.members if decay == "one" else 0.0
        return [
            {"params": shared, "weight_decay": weight_decay, "lr_scale": 1.0},
            {"params": factors, "weight_decay": factor_decay, "lr_scale": float(self.members)},
        ]


class Observer:
    """A student's parameters and statistics, frozen, under modules of their own that stay in evaluation mode.

    Perturbations look at single members between two training steps: without switching (and walking) the student's
    modules twice a step, and without a gradient for weights that nobody asks for.
    """

    def __init__(self, network: nn.Module):
        aliases = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
        buffers = {id(buffer): buffer for buffer in network.buffers()}
        self.network = copy.deepcopy(network, aliases | buffers).eval()
        first = rank_one_layers(self.network)[0]
        self.selection = first.selection
        self.choices: Sequence[int | Tensor] = range(self.selection.members)

    def compile(self, *args: Any, **options: Any) -> None:
        self.network.compile(*args, **options)
        device = next(self.network.parameters()).device
        self.choices = torch.arange(self.selection.members, device=device).split(1)

    def __call__(self, m: int, images: Tensor) -> Tensor:
        self.selection.only = self.choices[m]
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
    own_bias: bool = False,
) -> LatentBE:
    """A LatentBE student with the weights of `network`, which stays as it is.

    factors: "ones" (members begin equal), "normal" (mean 1, sd factors_sd), "sign" (+1 or -1). own_bias: every member
    has biases of its own, not under its factors.
    Raises ValueError, naming the module, where a layer has weights that rank-one factors are not defined for.
    """
    network = copy.deepcopy(network)
    selection = Selection(members)
    for name, module in list(network.named_modules()):
        if (reason := obstacle(module)) is not None:
            raise ValueError(f"cannot convert {name or 'the network'} ({type(module).__name__}) to members: {reason}")
        if type(module) in RANK_ONE:
            module.__class__ = RANK_ONE[type(module)]
            module.become(selection, own_bias)
    layers = rank_one_layers(network)
    if not layers:
        raise ValueError("cannot convert a network without Conv2d, Linear or MultiheadAttention layers to members")
    for factor in [p for layer in layers for p in (layer.dr, layer.ds)]:
        initialise(factor, factors, factors_sd, generator)
    return LatentBE(network, selection)


def obstacle(module: nn.Module) -> str | None:
    """Why a module, its children aside, cannot have members; None where it can.

    Vectors, norms, and tokens, position embeddings and layer scales by their names are shared by the members. Any other
    array of weights may mix features in a way that factors are not defined for.
    """
    if isinstance(module, BYPASSING):
        return "when evaluated it reads its layers' weights past their factors"
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is None:
        return "its projections of queries, keys and values are not packed into one"
    if type(module) in RANK_ONE or isinstance(module, NORMS):
        return None
    for name, parameter in module.named_parameters(recurse=False):
        is_vector = sum(length > 1 for length in parameter.shape) <= 1
        is_torch_layer = type(module).__module__.startswith("torch.nn.")
        if not is_vector and (is_torch_layer or not EMBEDDINGS.search(name)):
            return f"only Conv2d, Linear and MultiheadAttention have factors, not its {name} {tuple(parameter.shape)}"
    return None


@torch.no_grad()
def initialise(factor: Tensor, kind: str, sd: float, generator: torch.Generator | None) -> None:
    """Fill a deviation from 1 [M, n]; drawn on the CPU so that every device begins alike."""
    if kind == "normal":
        factor.copy_(torch.randn(factor.shape, generator=generator) * sd)
    elif kind == "sign":
        factor.copy_(-2.0 * torch.randint(2, factor.shape, generator=generator))
    elif kind != "ones":
        raise ValueError(f"factors begin as one of {INITIALISATIONS}, not {kind!r}")
