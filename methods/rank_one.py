"""Layers of members: one weight W for all, and rank-one factors r_m, s_m for each (Nam et al. 2022).

A layer computes y = ((x * r_m) W + b) * s_m. Since this is linear in x, it runs member m's rows through the modulated
weight W * s_m r_m^T instead of scaling its inputs and outputs: the same numbers (to rounding), but the extra work is on
weights, not on activations, and so nearly free. Gradients of r and s come out of the weight's gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear


class Selection:
    """Which members a student's layers compute: all of them on member-major rows, or a single one."""

    def __init__(self, members: int):
        self.members = members
        self.only: int | Tensor | None = None  # a tensor [1] in compiled networks: one graph for all members

    def of(self, factor: Tensor) -> Tensor:
        """The rows of a factor [M, n] that are computed."""
        if self.only is None:
            return factor
        if isinstance(self.only, Tensor):
            return factor.index_select(0, self.only)
        return factor[self.only : self.only + 1]


class RankOne:
    """Mix-in for a layer with a weight [out, in / groups, ...]; r [M, in], s [M, out] = 1 + (dr, ds).

    Storing the deviation from 1 makes the paper's decay 5e-4 (r - 1) plain weight decay.
    """

    names: ClassVar[tuple[str, str]] = ("weight", "bias")  # of the parameters that have factors

    def become(self, selection: Selection, own_bias: bool = False) -> None:
        """Add the factors to a plain layer whose class has just been changed to this one.

        own_bias: y = ((x * r_m) W) * s_m + b_m instead, b_m = b + db_m, for a layer that has a bias (Wen et al. 2020).
        """
        self.selection = selection
        groups, (weight, bias) = getattr(self, "groups", 1), self.plain()
        like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        self.dr = nn.Parameter(torch.zeros(selection.members, weight.shape[1] * groups, **like))
        self.ds = nn.Parameter(torch.zeros(selection.members, weight.shape[0], **like))
        self.db = nn.Parameter(torch.zeros_like(self.ds)) if own_bias and bias is not None else None

    def plain(self) -> tuple[Tensor, Tensor | None]:
        """The shared weight and bias."""
        return getattr(self, self.names[0]), getattr(self, self.names[1])

    def own(self) -> dict[str, nn.Parameter]:
        """What every member has of its own, [M, n] each, by name."""
        found = {name: getattr(self, name) for name in ("dr", "ds", "db")}
        return {name: values for name, values in found.items() if values is not None}

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
        s, r = (1 + self.selection.of(factor) for factor in (self.ds, self.dr))
        together = self.modulate(self.outer(s, r))
        kind = together.device.type
        if torch.is_autocast_enabled(kind):  # which would cast one member after the other
            together = together.to(torch.get_autocast_dtype(kind))
        weights = together.unbind()
        _, bias = self.plain()
        if bias is None:
            return [(weight, None) for weight in weights]
        biases = (bias * s if self.db is None else bias + self.selection.of(self.db)).unbind()
        return list(zip(weights, biases, strict=True))

    @torch.no_grad()
    def fold(self, merge: str) -> None:
        """Become the plain layer of the averaged members: its weight and bias are replaced, the factors leave."""
        s, r = self.s, self.r
        outer = self.outer(s, r).mean(0) if merge == "outer" else self.outer(s.mean(0), r.mean(0))
        weight, bias = self.plain()
        setattr(self, self.names[0], nn.Parameter(self.modulate(outer), requires_grad=weight.requires_grad))
        if bias is not None:
            bias_of_all = bias * s.mean(0) if self.db is None else bias + self.db.mean(0)
            setattr(self, self.names[1], nn.Parameter(bias_of_all, requires_grad=bias.requires_grad))
        del self.dr, self.ds, self.db, self.selection
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
