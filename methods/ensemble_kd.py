"""Ensemble distillation: the teachers' tempered softmaxes, averaged (Nam et al. 2022, equation 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.kd import KD
from methods.losses import soften
from methods.method import check


@dataclass
class EnsembleKD(KD):
    """A plain student matches the mean of the teachers' tempered softmaxes."""

    capturable: ClassVar[bool] = True
    teachers: ClassVar[int | None] = None
    average: str = "softmax"  # what is averaged over the teachers: their softmaxes, or their logits

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.average in ("softmax", "logits"), f"method.average is softmax or logits, not {self.average!r}")

    def target(self, images, teachers):
        logits_MBK = teachers(images)
        if self.average == "logits":
            return soften(logits_MBK.mean(0), self.temperature)
        return soften(logits_MBK, self.temperature).mean(0)
