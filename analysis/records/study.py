"""What was decided before the runs: the question, the primary metric, who is compared with whom.

A sweep's YAML has a block `study:`, which the harness copies into every record's configuration:

    study:
      question: Does weight averaging help beyond perturbation?
      primary: nll                    # one metric decides; the others are exploratory
      baseline: ensemble_kd
      alpha: 0.05                     # family-wise, within each family
      test: guarded                   # or t, sign_flip (see analysis/inference/statistics.py)
      margins: {nll: 0.02, acc: 0.005}    # smallest differences of interest, in the metric's own unit
      arms:                           # names for configurations, optional
        lbe_tdiv: {method: {name: combined, student_term: false}}     # or {method.name: combined, ...}
      seeds: 12                       # how many there will be, optional; more of them is a second look
      collapse: {accuracy: 0.5, barrier: 1.0}     # when a finished run counts as collapsed: accuracy below this share of
                                                  # the teacher's, or a loss barrier between two members above this
      factors: [teachers.size]            # keys that tell arms apart beside the method's options, optional
      families:
        variants: {against: ensemble_kd, arms: [weight_averaging, perturbation, combined]}  # default: all
        ladder: {ladder: [kd, ensemble_kd, weight_averaging, lbe_tdiv, combined]}
        parts:
          factorial:
            {neither: ensemble_kd, first: weight_averaging, second: perturbation, both: lbe_tdiv,
             names: [weight averaging, perturbation]}
        own: {pairs: [[combined, lbe_tdiv]]}                            # [variant, reference]
      sequential:                     # optional: `python -m harness.study` adds seeds until the question is answered
        looks: [8, 10, 12, 14, 16, 18, 20]  # seeds at each look, the last of them the budget
        spending: obrien_fleming            # or pocock (see analysis/inference/sequential.py)
        statistic: mean                     # or rank
      published:                      # numbers of others that these runs should meet, optional
        source: Nam et al. 2022
        data: cifar100
        model: wrn28_4
        arms: {combined: {nll: [0.808, 0.799, 0.792, 0.793], acc: [0.7998, 0.8021, 0.7999, 0.8016]}}    # a value a run

How it is read and checked: `declared.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from analysis.records.errors import AnalysisError
from analysis.records.outcomes import COLLAPSE

TESTS = ("guarded", "t", "sign_flip")
SPENDING = ("obrien_fleming", "pocock")
STATISTICS = ("mean", "rank")
KINDS = ("against", "ladder", "factorial", "pairs")
LADDER = ("kd", "ensemble_kd", "weight_averaging", "combined")
CELLS = ("neither", "first", "second", "both")
FACTORIAL = {
    "neither": ("ensemble_kd",),
    "first": ("weight_averaging",),
    "second": ("perturbation",),
    "both": ("combined[student_term=false]",),
}


@dataclass(frozen=True)
class Family:
    """Comparisons that share one family-wise error level."""

    name: str
    kind: str  # one of KINDS
    arms: tuple[str, ...] = ()  # ladder: its steps; against: the variants (empty: all); factorial: its four cells
    reference: str | None = None  # against: the baseline
    pairs: tuple[tuple[str, str], ...] = ()
    names: tuple[str, str] = ("weight averaging", "perturbation")  # factorial: the two factors
    declared: bool = True

    def __post_init__(self) -> None:
        repeated = len(set(self.arms)) < len(self.arms) or self.reference in self.arms
        if repeated or any(a == b for a, b in self.pairs):
            raise AnalysisError(f"family {self.name} compares an arm with itself")

    def comparisons(self, present: list[str]) -> list[tuple[str, str]]:
        """(variant, reference) pairs among the arms that are there; a factorial has none of this kind."""
        if self.kind == "against":
            variants = self.arms or tuple(arm for arm in present if arm != self.reference)
            wanted = [(variant, self.reference) for variant in variants]
        elif self.kind == "ladder":
            wanted = [(b, a) for a, b in pairwise(self.arms)]  # a step over an absent arm was not declared
        else:
            wanted = list(self.pairs)
        return [(a, b) for a, b in wanted if a in present and b in present]

    @property
    def size(self) -> int:
        """How many comparisons were declared; 0 where their number is that of the arms that are there."""
        return {"against": len(self.arms), "ladder": len(self.arms) - 1, "factorial": 3}.get(self.kind, len(self.pairs))

    def absent(self, present: list[str]) -> list[str]:
        """Declared arms that no run has yet."""
        return sorted((self.named or set(filter(None, [self.reference]))) - set(present))

    @property
    def named(self) -> set[str]:
        """All arms that it names; empty where a family against a baseline takes every arm."""
        if self.kind == "against" and not self.arms:
            return set()
        return {*self.arms, *(arm for pair in self.pairs for arm in pair), *filter(None, [self.reference])}


@dataclass(frozen=True)
class Sequential:
    """When a study looks, and by what; the fields of `analysis.inference.sequential.Design`."""

    looks: tuple[int, ...]  # seeds, rising
    spending: str = SPENDING[0]
    statistic: str = STATISTICS[0]


@dataclass(frozen=True)
class Published:
    """What others found for arms on a data set and network: of each metric a value for every one of their runs."""

    source: str
    data: str
    model: str
    arms: dict[str, dict[str, tuple[float, ...]]]


@dataclass(frozen=True)
class Study:
    """The declared design. `source` says where it was declared: 'records', a file's name, or 'nowhere'."""

    question: str | None = None
    primary: str = "nll"
    baseline: str | None = None
    alpha: float = 0.05
    test: str = "guarded"
    margins: dict[str, float] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    seeds: int | None = None
    collapse: dict[str, float] = field(default_factory=lambda: dict(COLLAPSE))
    families: tuple[Family, ...] = ()
    sequential: Sequential | None = None
    published: Published | None = None
    source: str = "nowhere"

    def complete(self, present: list[str]) -> Study:
        """Fill in what was not declared, for the arms that are there; families made up here are exploratory."""
        baseline = self.baseline
        if baseline is None and present:
            baseline = next((arm for arm in ("ensemble_kd", "kd") if arm in present), present[0])
        return replace(self, baseline=baseline, families=self.families or _default_families(baseline, present))


def _default_families(baseline: str | None, present: list[str]) -> tuple[Family, ...]:
    families = [Family("variants", "against", reference=baseline, declared=False)]
    ladder = tuple(arm for arm in LADDER if arm in present)
    if len(ladder) > 1:
        families.append(Family("ladder", "ladder", arms=ladder, declared=False))
    cells = [next((arm for arm in FACTORIAL[cell] if arm in present), None) for cell in CELLS]
    if all(cells):
        families.append(Family("factorial", "factorial", arms=tuple(cells), declared=False))
    return tuple(families)
