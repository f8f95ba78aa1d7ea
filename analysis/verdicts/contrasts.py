"""Comparisons with verdicts: better, worse, equivalent or inconclusive.

A verdict of better or worse needs the deciding test's p, Holm-adjusted within its family, at or below alpha.
As p cannot lie below the test's floor, a claim that the number of seeds cannot support is never made. On the
primary metric the level holds family-wise; on all others p is Benjamini-Hochberg adjusted over the family and
the result is exploratory. So is that of a family that was not declared before the runs, whatever the metric, and of
one with runs that do not declare it. A family is as large as it was declared, whatever of it has run.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference import power, ranks, statistics
from analysis.inference.crossed import over_teachers, standard_error
from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.declared import beyond, outside, study_of
from analysis.records.errors import AnalysisWarning
from analysis.records.pairing import Pairs, pair
from analysis.records.study import Family, Study
from analysis.records.texts import few
from analysis.verdicts import words
from analysis.verdicts.contrast import Comparison, Contrast
from analysis.verdicts.factorial import effects
from analysis.verdicts.images import error_over_images
from analysis.verdicts.outcomes import outcomes_of

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.metrics import Metric


def measure(pairs: Pairs, metric: Metric, study: Study, **names: str) -> Contrast:
    """All numbers of one comparison that do not depend on its family."""
    d, whole = pairs.by_seed, pairs.finished
    n, means = len(d), d[np.isfinite(d)]
    sets = pairs.by_set
    contrast = Contrast(
        **names,
        metric=metric.column,
        n=n,
        pairs=len(pairs.values),
        survivors=len(means),
        sets=tuple(int(number) for number in sets.index),
        dropped=pairs.dropped,
        weights=pairs.weights,
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
        values = whole.side(positive)
        setattr(contrast, f"mean_{side}", float(values.mean()) if len(values) else math.nan)
        setattr(contrast, f"sd_{side}", float(values.std(ddof=1)) if len(values) > 1 else math.nan)
    if len(means):
        t = statistics.paired_t(means)
        contrast.difference, contrast.low, contrast.high = float(means.mean()), float(t.low), float(t.high)
        contrast.p_t, contrast.d_z = float(t.p), float(statistics.hedges(means))
        contrast.error_seeds = standard_error(means)
    contrast.typical, contrast.low_typical, contrast.high_typical = map(float, ranks.typical(d))
    contrast.superiority = float(statistics.superiority(metric.sign * d))
    if n > 1:
        contrast.p_rank = float(ranks.signed_rank(d))
        contrast.p_flip = math.nan if contrast.failed else float(statistics.sign_flip(d))
        contrast.p = float(statistics.decide(d, study.test))
    test = "sign_flip" if contrast.failed else study.test  # the ranks' floor is that of signs
    contrast.floor = statistics.smallest_p(n, test, zeros=int((d == 0).sum()))
    if contrast.margin and n > 1:
        contrast.p_equivalence = float(statistics.equivalence(d, contrast.margin, study.test))
    if len(sets) > 1 and not contrast.failed and not sets.isna().any(axis=None):
        found = over_teachers(sets)
        contrast.low_sets, contrast.high_sets = float(found.low), float(found.high)
        contrast.sets_agreeing = int((np.sign(sets.mean(axis=1)) == np.sign(contrast.difference)).sum())
    return contrast


def judge(family: list[Contrast], adjustment: str = "Holm", size: int = 0) -> list[Contrast]:
    """Give verdicts to one family on one metric. Changes and returns the contrasts.

    adjustment: of p; "BH" where `p_adjusted` is already set, over more than this family. size: of the family as
    declared. On the primary metric claims of a difference and of equivalence share one level.
    """
    tested = sum(not math.isnan(c.p) for c in family)
    holm = adjustment == "Holm"
    differing, equivalent = statistics.holm_either([c.p for c in family], [c.p_equivalence for c in family], size)
    for c, p, q in zip(family, differing, equivalent, strict=True):
        c.p_equivalence = float(q)
        if holm:
            c.p_adjusted = float(p)
    for c in family:
        c.adjustment = adjustment
        c.family_size = max(tested, size, 1) if holm else 1  # BH's smallest adjusted p is the floor itself
        _foresee(c)
        c.verdict = _verdict(c)
        c.words = words.sentence(c)
    return family


def _foresee(c: Contrast) -> None:
    """What these seeds could have found, and how many would find the margin; nothing of the kind where runs failed."""
    if c.n < 2 or c.failed:
        return
    sd = float(np.std(c.by_seed, ddof=1))
    largest, level = power.largest_sd(sd, c.n), c.alpha / c.family_size
    if c.floor_adjusted <= c.alpha:  # else no difference would have been found, however large
        c.detectable, c.detectable_high = (power.detectable(s, c.n, level, c.test) for s in (sd, largest))
    if c.margin:
        c.needed, c.needed_high = (power.pairs_needed(s, c.margin, level, c.test) for s in (sd, largest))


def _verdict(c: Contrast) -> str:
    if c.n > 1 and c.p_adjusted <= c.alpha:
        direction = ranks.signed_ranks(np.array(c.by_seed)).sum() if c.failed else c.difference
        return "better" if direction * metrics.metric(c.metric).sign > 0 else "worse"
    if c.p_equivalence <= c.alpha:
        return "equivalent"
    return "inconclusive"


def comparisons_of(family: Family, arms: list[str]) -> list[Comparison]:
    """The rows of a family among the arms that are there; a factorial has none unless all its cells are."""
    if family.kind == "factorial":
        return effects(family) if not family.absent(arms) else []
    return [Comparison(family.kind, a, b, {a: 1.0, b: -1.0}) for a, b in family.comparisons(arms)]


def compare_family(
    runs: pd.DataFrame, study: Study, family: Family, columns: list[str] | tuple[str, ...]
) -> list[Contrast]:
    """A family's contrasts on several metrics and all (data, model) blocks, adjusted and judged."""
    by_metric: dict[str, list[Contrast]] = {column: [] for column in columns}
    fixed = family.declared and not study.sequential  # whose looks decide, each at its share of the level
    declared = fixed and not outside(runs[runs["arm"].isin(family.named or set(runs["arm"]))], study)
    for (data, model), block in runs.groupby(["data", "model"], sort=True):
        for kind, variant, reference, weights in comparisons_of(family, present(block)):
            for column in columns:
                if column != study.primary and not _measured(block, weights, column):
                    continue  # e.g. loss barriers of a student without members
                role = "primary" if column == study.primary and declared else "exploratory"
                found = measure(
                    pair(block, weights, column), metrics.metric(column), study,
                    family=family.name, kind=kind, data=data, model=model,
                    variant=variant, reference=reference, role=role,
                )  # fmt: skip
                if reference:
                    found.outcomes = outcomes_of(block, variant, reference, column, study)
                by_metric[column].append(found)
    # On the primary metric the level holds family-wise (Holm); the others share a false discovery rate.
    secondary = [c for column in columns if column != study.primary for c in by_metric[column]]
    for c, p in zip(secondary, statistics.benjamini_hochberg([c.p for c in secondary]), strict=True):
        c.p_adjusted = float(p)
    size = family.size * len(runs.groupby(["data", "model"]))
    return [
        c
        for column in columns
        for c in (judge(by_metric[column], size=size) if column == study.primary else judge(by_metric[column], "BH"))
    ]


def _measured(block: pd.DataFrame, weights: dict[str, float], column: str) -> bool:
    """Whether every arm has the metric in at least one run."""
    return all(block.loc[block["arm"] == arm, column].notna().any() for arm in weights)


def compute(runs: pd.DataFrame, study: Study, columns: list[str] | None = None) -> list[Contrast]:
    """All contrasts of all families; warns of pairs that were dropped, by name."""
    study = study.complete(present(runs))
    metrics.require_measured(runs, [study.primary, *(columns or ())])
    names = [m.column for m in metrics.present(list(runs.columns), tuple(columns or ()) or None)]
    names = [study.primary, *(name for name in names if name != study.primary)]
    found = [c for family in study.families for c in compare_family(runs, study, family, names)]
    error_over_images(runs, [c for c in found if c.metric == study.primary])
    for line in beyond(runs, study):
        warnings.warn(line, AnalysisWarning, stacklevel=2)
    if dropped := _dropped(found):
        warnings.warn("unpaired, left out: " + "; ".join(dropped), AnalysisWarning, stacklevel=2)
    return found


def _dropped(found: list[Contrast]) -> list[str]:
    """What was left out of the pairs, by why; of many the first."""
    places: dict[tuple[str, str], dict[str, None]] = {}
    for c in found:
        for text in c.dropped:
            place, _, why = text.partition(": ")
            places.setdefault((c.block, why), {})[place] = None
    return [f"{block}: {few(list(where), shown=8)}: {why}" for (block, why), where in places.items()]


def compare(runs: pd.DataFrame, study: Study | None = None, columns: list[str] | None = None) -> pd.DataFrame:
    """All contrasts as a table, a row each, with the fields of `Contrast`."""
    import pandas as pd

    found = compute(runs, study or study_of(runs), columns)
    return pd.DataFrame([asdict(c) | {"floor_adjusted": c.floor_adjusted} for c in found])
