"""Members that stay what they are: M passes at inference, not one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.ensemble import Averaged, Members
from methods.latent_be import convert
from methods.weight_averaging import WeightAveraging


class Unmerged:
    """A mix-in for students whose members' softmaxes are averaged, not their weights."""

    def inference_passes(self, members):
        return members

    def form(self, network: nn.Module, members: int) -> nn.Module:
        return Averaged(Members(copy.deepcopy(network) for _ in range(members)))


@dataclass
class LatentBEUnmerged(Unmerged, WeightAveraging):
    """The student of `weight_averaging` before it is merged: what merging costs."""

    capturable: ClassVar[bool] = True

    def deploy(self, student):
        return Averaged(Members(student.extract(m) for m in range(student.members)))


@dataclass
class BatchEnsemble(LatentBEUnmerged):
    """Member m of a BatchEnsemble student matches teacher m: members begin apart, and have biases of their own."""

    citation: ClassVar[str] = (
        "Wen, Tran, Ba. BatchEnsemble: An Alternative Approach to Efficient Ensemble and Lifelong Learning. ICLR, 2020."
    )
    capturable: ClassVar[bool] = True
    factors: str = "normal"
    decay: str = "none"

    def student(self, network, members, generator):
        return convert(network, members, self.factors, self.factors_sd, generator, own_bias=True)
