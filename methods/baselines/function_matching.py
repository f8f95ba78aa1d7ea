"""Function matching: a patient student on mixed images, as much trained as weight averaging costs (Beyer et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.baselines.mixup import KDMixUp
from methods.weight_averaging import WeightAveraging


@dataclass
class FunctionMatching(KDMixUp):
    """The averaged teachers at T = 1, no labels, MixUp on every batch, and so many more epochs."""

    citation: ClassVar[str] = (
        "Beyer, Zhai, Royer, Markeeva, Anil, Kolesnikov. Knowledge Distillation: A Good Teacher Is Patient and "
        "Consistent. CVPR, 2022."
    )
    temperature: float = 1.0
    match_compute: bool = True  # train for as many passes as weight_averaging makes; false: for the recipe's epochs

    def epochs(self, asked, members):
        return round(asked * WeightAveraging().passes(members) / self.passes(members)) if self.match_compute else asked
