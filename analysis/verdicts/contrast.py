"""One comparison: which arms with which weights, and all the numbers and words that come of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from analysis.verdicts.outcomes import Outcome


class Comparison(NamedTuple):
    """What a row of a family compares: a weighted sum of arms, as variant and reference or as a named effect."""

    kind: str  # of the family; 'effect' and 'interaction' for the rows of a factorial
    variant: str
    reference: str
    weights: dict[str, float]


@dataclass
class Contrast:
    """One comparison on one metric. Differences are variant minus reference in the metric's own unit."""

    family: str
    kind: str  # of the family; 'effect' and 'interaction' for the rows of a factorial
    data: str
    model: str
    variant: str
    reference: str
    metric: str
    role: str  # primary | exploratory
    n: int  # seeds, with those in which a run failed
    pairs: int
    survivors: int  # seeds in which none did: means, d_z and t are over them
    sets: tuple[int, ...]
    mean_variant: float = math.nan
    sd_variant: float = math.nan
    mean_reference: float = math.nan
    sd_reference: float = math.nan
    difference: float = math.nan
    low: float = math.nan  # 95 % t interval over seeds
    high: float = math.nan
    d_z: float = math.nan  # Hedges-corrected
    typical: float = math.nan  # Hodges-Lehmann over seeds, a failed run the worst; with its exact 95 % interval
    low_typical: float = math.nan
    high_typical: float = math.nan
    p_rank: float = math.nan  # exact signed rank
    outcomes: tuple[Outcome, ...] = ()  # failed and collapsed runs, where there are any
    superiority: float = math.nan  # P(variant better than reference), over seeds
    p_t: float = math.nan
    p_flip: float = math.nan
    p: float = math.nan  # of the deciding test; of the signed-rank test where a run failed
    p_adjusted: float = math.nan
    adjustment: str = "Holm"  # or BH
    floor: float = math.nan  # the smallest p that the deciding test can reach on these pairs
    family_size: int = 1
    margin: float | None = None
    p_equivalence: float = math.nan  # Holm-adjusted
    # With 80 % power as the first of its family, at the estimated sd and at its upper 80 % limit; NaN where no difference is
    detectable: float = math.nan
    detectable_high: float = math.nan
    needed: int | None = None  # seeds to find the margin with 80 % power, at either sd
    needed_high: int | None = None
    low_sets: float = math.nan  # over teachers: crossed random effects, 95 %
    high_sets: float = math.nan
    error_seeds: float = math.nan  # standard errors of the difference: over seeds, over test images
    error_images: float = math.nan
    sets_agreeing: int = 0  # teacher sets whose mean difference has the sign of the whole
    test: str = "guarded"
    alpha: float = 0.05
    verdict: str = "inconclusive"
    words: str = ""
    dropped: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict, repr=False)  # of the arms
    by_seed: list[float] = field(default_factory=list, repr=False)

    @property
    def floor_adjusted(self) -> float:
        """The floor as the first of its family under Holm."""
        return min(1.0, self.floor * self.family_size)

    @property
    def failed(self) -> bool:
        """Whether a run failed, so that there is no mean and ranks decide."""
        return self.survivors < self.n

    @property
    def label(self) -> str:
        """`combined - kd`, or the name of an effect."""
        return f"{self.variant} - {self.reference}" if self.reference else self.variant

    @property
    def compared(self) -> tuple[str, frozenset[frozenset[tuple[str, float]]]]:
        """What is compared where: the same for contrasts of several families, and for both ways round."""
        ways = (frozenset((arm, sign * weight) for arm, weight in self.weights.items()) for sign in (1, -1))
        return self.block, frozenset(ways)

    @property
    def block(self) -> str:
        """`digits x wrn16_2`: the data set and the network."""
        return f"{self.data} x {self.model}"

    @property
    def shown_verdict(self) -> str:
        """The verdict, in parentheses where it is exploratory."""
        return self.verdict if self.role == "primary" else f"({self.verdict})"
