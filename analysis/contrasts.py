"""Comparisons with verdicts: better, worse, equivalent or inconclusive.

A verdict of better or worse needs the deciding test's p, Holm-adjusted within its family, at or below alpha.
As p cannot lie below the test's floor, a claim that the number of seeds cannot support is never made. On the
primary metric the level holds family-wise; on all others p is Benjamini-Hochberg adjusted over the family and
the result is exploratory. So is that of a family that was not declared before the runs, whatever the metric.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis import metrics, power, statistics, words
from analysis.pairing import Pairs, pair
from analysis.records import AnalysisWarning
from analysis.study import Family, Study

if TYPE_CHECKING:
    import pandas as pd

    from analysis.metrics import Metric

VERDICTS = ("better", "worse", "equivalent", "inconclusive")


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
    n: int  # seeds
    pairs: int
    sets: tuple[int, ...]
    mean_variant: float = math.nan
    sd_variant: float = math.nan
    mean_reference: float = math.nan
    sd_reference: float = math.nan
    difference: float = math.nan
    low: float = math.nan  # 95 % t interval over seeds
    high: float = math.nan
    d_z: float = math.nan  # Hedges-corrected
    superiority: float = math.nan  # P(variant better than reference), over seeds
    p_t: float = math.nan
    p_flip: float = math.nan
    p: float = math.nan  # of the deciding test
    p_adjusted: float = math.nan
    adjustment: str = "Holm"  # or BH
    floor: float = math.nan  # the smallest p that the deciding test can reach on these pairs
    family_size: int = 1
    margin: float | None = None
    p_equivalence: float = math.nan  # Holm-adjusted
    detectable: float = math.nan  # with 80 % power, as the first of its family; NaN where no difference is
    needed: int | None = None  # seeds to find the margin with 80 % power
    low_sets: float = math.nan  # hierarchical bootstrap: teacher sets, then seeds
    high_sets: float = math.nan
    sets_agreeing: int = 0  # teacher sets whose mean difference has the sign of the whole
    test: str = "guarded"
    alpha: float = 0.05
    verdict: str = "inconclusive"
    words: str = ""
    dropped: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    by_seed: list[float] = field(default_factory=list, repr=False)

    @property
    def floor_adjusted(self) -> float:
        """The floor as the first of its family under Holm."""
        return min(1.0, self.floor * self.family_size)


def measure(pairs: Pairs, metric: Metric, study: Study, **names: str) -> Contrast:
    """All numbers of one comparison that do not depend on its family."""
    d = pairs.by_seed
    n = len(d)
    sets = pairs.by_set
    contrast = Contrast(
        **names,
        metric=metric.column,
        n=n,
        pairs=len(pairs.values),
        sets=tuple(int(number) for number in sets.index),
        dropped=pairs.dropped,
        runs=tuple(pairs.runs.to_numpy().ravel()),
        margin=study.margins.get(metric.column),
        test=study.test,
        alpha=study.alpha,
        by_seed=[float(value) for value in d],
    )
    if n == 0:
        contrast.floor = 1.0
        return contrast
    for side, positive in (("variant", True), ("reference", False)):
        values = pairs.side(positive)
        setattr(contrast, f"mean_{side}", float(values.mean()))
        setattr(contrast, f"sd_{side}", float(values.std(ddof=1)) if len(values) > 1 else math.nan)
    t = statistics.paired_t(d)
    contrast.difference, contrast.low, contrast.high = float(d.mean()), float(t.low), float(t.high)
    contrast.p_t, contrast.d_z = float(t.p), float(statistics.hedges(d))
    contrast.superiority = float(statistics.superiority(metric.sign * d))
    if n > 1:
        contrast.p_flip = float(statistics.sign_flip(d))
        contrast.p = float(statistics.decide(d, study.test))
    contrast.floor = statistics.smallest_p(n, study.test, zeros=int((d == 0).sum()))
    if contrast.margin and n > 1:
        contrast.p_equivalence = float(statistics.equivalence(d, contrast.margin, study.test))
    if len(sets) > 1:
        from analysis.resampling import hierarchical

        _, contrast.low_sets, contrast.high_sets = hierarchical(sets)
        contrast.sets_agreeing = int((np.sign(sets.mean(axis=1)) == np.sign(contrast.difference)).sum())
    return contrast


def judge(family: list[Contrast], adjustment: str = "Holm") -> list[Contrast]:
    """Give verdicts to one family on one metric. Changes and returns the contrasts.

    adjustment: of p; "BH" where `p_adjusted` is already set, over more than this family. The p of equivalence is
    Holm's in either case.
    """
    tested = sum(not math.isnan(c.p) for c in family)
    holm = adjustment == "Holm"
    if holm:
        for c, p in zip(family, statistics.holm([c.p for c in family]), strict=True):
            c.p_adjusted = float(p)
    for c, p in zip(family, statistics.holm([c.p_equivalence for c in family]), strict=True):
        c.p_equivalence = float(p)
    for c in family:
        c.adjustment = adjustment
        c.family_size = max(tested, 1) if holm else 1  # BH's smallest adjusted p is the floor itself
        sd = float(np.std(c.by_seed, ddof=1)) if c.n > 1 else math.nan
        # Below the floor no difference would have been found, however large.
        reachable = c.floor_adjusted <= c.alpha
        level = c.alpha / c.family_size
        c.detectable = power.detectable(sd, c.n, level, c.test) if reachable else math.nan
        if c.margin:
            c.needed = power.pairs_needed(sd, c.margin, level, c.test)
        c.verdict = _verdict(c)
        c.words = words.sentence(c)
    return family


def _verdict(c: Contrast) -> str:
    if c.n > 1 and c.p_adjusted <= c.alpha:
        return "better" if c.difference * metrics.metric(c.metric).sign > 0 else "worse"
    if c.p_equivalence <= c.alpha:
        return "equivalent"
    return "inconclusive"


def weights_of(family: Family, present: list[str]) -> list[tuple[str, str, str, dict[str, float]]]:
    """(kind, variant, reference, weights of the arms) for each row of a family."""
    if family.kind == "factorial":
        from analysis.factorial import effects

        return effects(family) if not family.absent(present) else []
    return [(family.kind, a, b, {a: 1.0, b: -1.0}) for a, b in family.comparisons(present)]


def compare_family(
    runs: pd.DataFrame, study: Study, family: Family, columns: list[str] | tuple[str, ...]
) -> list[Contrast]:
    """A family's contrasts on several metrics and all (data, model) blocks, adjusted and judged."""
    by_metric: dict[str, list[Contrast]] = {column: [] for column in columns}
    for (data, model), block in runs.groupby(["data", "model"], sort=True):
        present = sorted(block.loc[block["status"] == "done", "arm"].unique())
        for kind, variant, reference, weights in weights_of(family, present):
            for column in columns:
                if column != study.primary and not _measured(block, weights, column):
                    continue  # e.g. loss barriers of a student without members
                role = "primary" if column == study.primary and family.declared else "exploratory"
                by_metric[column].append(
                    measure(
                        pair(block, weights, column), metrics.metric(column), study,
                        family=family.name, kind=kind, data=data, model=model,
                        variant=variant, reference=reference, role=role,
                    )
                )  # fmt: skip
    # On the primary metric the level holds family-wise (Holm); the others share a false discovery rate.
    secondary = [c for column in columns if column != study.primary for c in by_metric[column]]
    for c, p in zip(secondary, statistics.benjamini_hochberg([c.p for c in secondary]), strict=True):
        c.p_adjusted = float(p)
    return [c for column in columns for c in judge(by_metric[column], "Holm" if column == study.primary else "BH")]


def _measured(block: pd.DataFrame, weights: dict[str, float], column: str) -> bool:
    """Whether every arm has the metric in at least one run."""
    return all(block.loc[block["arm"] == arm, column].notna().any() for arm in weights)


def compute(runs: pd.DataFrame, study: Study, columns: list[str] | None = None) -> list[Contrast]:
    """All contrasts of all families; warns of pairs that were dropped, by name."""
    study = study.complete(sorted(runs.loc[runs["status"] == "done", "arm"].unique()))
    metrics.require_measured(runs, [study.primary, *(columns or ())])
    names = [m.column for m in metrics.present(list(runs.columns), tuple(columns or ()) or None)]
    names = [study.primary, *(name for name in names if name != study.primary)]
    found = [c for family in study.families for c in compare_family(runs, study, family, names)]
    dropped: dict[str, None] = {}
    for c in found:
        dropped |= {f"{c.data} x {c.model}: {text}": None for text in c.dropped}
    if dropped:
        warnings.warn("unpaired, left out: " + "; ".join(dropped), AnalysisWarning, stacklevel=2)
    return found


def compare(runs: pd.DataFrame, study: Study | None = None, columns: list[str] | None = None) -> pd.DataFrame:
    """All contrasts as a table, a row each, with the fields of `Contrast`."""
    import pandas as pd

    from analysis.study import study_of

    found = compute(runs, study or study_of(runs), columns)
    return pd.DataFrame([asdict(c) | {"floor_adjusted": c.floor_adjusted} for c in found])
