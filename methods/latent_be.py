"""LatentBE: members that share every weight W and differ by rank-one factors, W * s_m r_m^T (Nam et al. 2022).

`convert` turns any network of Conv2d, Linear and MultiheadAttention layers into such a student, `LatentBE.merge` turns
it back into one plain network of the original class. Everything else of the network (norms, embeddings) is shared by
the members.

A layer computes y = ((x * r_m) W + b) * s_m. Since this is linear in x, it runs member m's rows through the modulated
weight W * s_m r_m^T instead of scaling its inputs and outputs: the same numbers (to rounding), but the extra work is on
weights, not on activations, and so nearly free. Gradients of r and s come out of the weight's gradient.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

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

    names: ClassVar[tuple[str, str]] = ("weight", "bias")  # of the parameters that have factors

    def become(self, selection: Selection) -> None:
        """Add the factors to a plain layer whose class has just been changed to this one."""
        self.selection = selection
        groups, (weight, _) = getattr(self, "groups", 1), self.plain()
        like = {"device": weight.device, "dtype": weight.dtype}
        self.dr = nn.Parameter(torch.zeros(selection.members, weight.shape[1] * groups, **like))
        self.ds = nn.Parameter(torch.zeros(selection.members, weight.shape[0], **like))

    def plain(self) -> tuple[Tensor, Tensor | None]:
        """The shared weight and bias."""
        return getattr(self, self.names[0]), getattr(self, self.names[1])

    @property
    def r(self) -> Tensor:
        return 1 + self.dr

    @property
    def s(self) -> Tensor:
        return 1 + self.ds

    def modulate(self, outer: Tensor) -> Tensor:
        """W * outer, for a factor [..., groups, out / groups, in / groups] with any leading axes."""
        weight, _ = self.plain()
        # Broadcast, not reshaped: the product keeps the weight's memory format.
        return weight * outer.flatten(-3, -2)[(..., *[None] * (weight.dim() - 2))]

    def outer(self, s: Tensor, r: Tensor) -> Tensor:
        """s r^T within each group: [..., groups, out / groups, in / groups] of s [..., out], r [..., in]."""
        groups = getattr(self, "groups", 1)
        return s.unflatten(-1, (groups, -1, 1)) * r.unflatten(-1, (groups, 1, -1))

    def member_weights(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of every member that is computed: all of them, or the selected one."""
        m = self.selection.only
        s, r = (self.s, self.r) if m is None else (self.s[m : m + 1], self.r[m : m + 1])
        weights = self.modulate(self.outer(s, r)).unbind()
        _, bias = self.plain()
        biases = [None] * len(weights) if bias is None else (bias * s).unbind()
        return list(zip(weights, biases, strict=True))

    @torch.no_grad()
    def fold(self, merge: str) -> None:
        """Become the plain layer of the averaged members: its weight and bias are replaced, the factors leave."""
        s, r = self.s, self.r
        outer = self.outer(s, r).mean(0) if merge == "outer" else self.outer(s.mean(0), r.mean(0))
        weight, bias = self.plain()
        setattr(self, self.names[0], nn.Parameter(self.modulate(outer), requires_grad=weight.requires_grad))
        if bias is not None:
            setattr(self, self.names[1], nn.Parameter(bias * s.mean(0), requires_grad=bias.requires_grad))
        del self.dr, self.ds, self.selection
        self.__class__ = PLAIN[type(self)]


class RowWise(RankOne):
    """A layer whose forward pass is one function of rows, weight and bias."""

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        members = self.member_weights()
        if len(members) == 1:
            return self.apply_weight(x, *members[0])
        rows = x.chunk(len(members))
        return torch.cat([self.apply_weight(part, *plain) for part, plain in zip(rows, members, strict=True)])


class RankOneConv2d(RowWise, nn.Conv2d):
    """Conv2d with factors; grouped, strided, dilated and padded ones alike."""

    def apply_weight(self, x, weight, bias):
        return self._conv_forward(x, weight, bias)


class RankOneLinear(RowWise, nn.Linear):
    """Linear with factors, on inputs [rows, ..., in]."""

    def apply_weight(self, x, weight, bias):
        return F.linear(x, weight, bias)


class RankOneProjection(RankOneLinear, NonDynamicallyQuantizableLinear):
    """The output projection of an attention layer, which reads its weights and never calls it."""


class RankOneAttention(RankOne, nn.MultiheadAttention):
    """MultiheadAttention with factors on its packed input projection [3 E, E] and on its output projection [E, E]."""

    names = ("in_proj_weight", "in_proj_bias")

    def forward(self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None, **options):
        inputs, outputs = self.member_weights(), self.out_proj.member_weights()
        rows = 0 if self.batch_first else 1
        parts = zip(*(x.chunk(len(inputs), rows) for x in (query, key, value)), strict=True)
        masks = [None] * len(inputs) if key_padding_mask is None else key_padding_mask.chunk(len(inputs))
        if attn_mask is not None and attn_mask.dim() == 3:
            raise NotImplementedError("members share one attention mask [target, source]")
        attended, weights = [], []
        for m, part in enumerate(parts):
            if self.batch_first:
                part = [x.transpose(0, 1) for x in part]
            y, w = F.multi_head_attention_forward(
                *part,
                self.embed_dim,
                self.num_heads,
                *inputs[m],
                self.bias_k,
                self.bias_v,
                self.add_zero_attn,
                self.dropout,
                *outputs[m],
                training=self.training,
                key_padding_mask=masks[m],
                need_weights=need_weights,
                attn_mask=attn_mask,
                **options,
            )
            attended.append(y.transpose(0, 1) if self.batch_first else y)
            weights.append(w)
        return torch.cat(attended, rows), torch.cat(weights) if need_weights else None


RANK_ONE = {
    nn.Conv2d: RankOneConv2d,
    nn.Linear: RankOneLinear,
    NonDynamicallyQuantizableLinear: RankOneProjection,
    nn.MultiheadAttention: RankOneAttention,
}
PLAIN = {rank_one: plain for plain, rank_one in RANK_ONE.items()}
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
        self.observer.network.compile(*args, **options)

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
            layer.dr, layer.ds = (nn.Parameter(factor[m : m + 1].detach()) for factor in (layer.dr, layer.ds))
            layer.fold("factors")
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
        if (reason := obstacle(module)) is not None:
            raise ValueError(f"cannot convert {name or 'the network'} ({type(module).__name__}) to members: {reason}")
        if type(module) in RANK_ONE:
            module.__class__ = RANK_ONE[type(module)]
            module.become(selection)
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
