"""The paper's full recipe: weight averaging on TDiv-SDiv inputs (Nam et al. 2022, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.perturbation import Perturbed
from methods.weight_averaging import WeightAveraging


@dataclass
class Combined(Perturbed, WeightAveraging):
    """Member m matches teacher m on inputs where the teachers disagree and the members do not yet."""

    capturable: ClassVar[bool] = True
    student_term: bool = True
