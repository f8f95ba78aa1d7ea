"""The clean factorial's fourth arm: members on the inputs that a plain student of `perturbation` is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.combined import Combined


@dataclass
class LatentBETDiv(Combined):
    """Member m matches teacher m on inputs where the teachers disagree, whatever the members do (TDiv)."""

    capturable: ClassVar[bool] = True
    student_term: bool = False
