"""One check of the regression gate: paired differences on one metric, judged as pass, regression or unknown.

With differences signed so that more is better,
    pass        the mean difference lies above -margin (one-sided test at alpha), or the runs are the very same
    regression  not shown to be above -margin, and below 0 (one-sided test at alpha)
    failed      a run failed, diverged or has no finite value where its partner finished: nothing passes over it
    unknown     neither: too few runs to tell; the number that is missing is estimated
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from analysis.inference import power, statistics
from analysis.records import metrics

PASS, REGRESSION, UNKNOWN, FAILED = "pass", "regression", "not enough runs", "runs failed"


@dataclass(frozen=True)
class Check:
    """One variant on one metric or cost: verdict, numbers, and how many runs are missing to tell."""

    variant: str
    reference: str
    metric: str
    verdict: str
    n: int
    difference: float = math.nan  # new minus old, in the metric's unit; for costs a ratio
    low: float = math.nan
    high: float = math.nan
    margin: float = math.nan
    missing: int = 0
    words: str = ""
    remedy: str = ""  # where more runs of the variant would not help
    note: str = ""  # where the two sides differ in more than the variant
    failed: int = 0  # runs that did not end well where their partner did
    level: float = math.nan  # of this look: what earlier ones left of alpha
    p_worse: float = math.nan  # one-sided; NaN where no regression can be tested
    subject: str = ""  # digest of what is judged, to know it again
    seeds: int = 0  # that this look has seen, failed ones too


def check(
    d: ArrayLike, column: str, margin: float, alpha: float, test: str, variant: str = "", reference: str = "",
    level: float | None = None,
) -> Check:  # fmt: skip
    """Judge paired differences, new minus old, one per seed [n].

    level: what earlier looks have left of alpha; all of it by default.
    """
    level = alpha if level is None else level
    d = np.asarray(d, float)
    m = metrics.metric(column)
    goodness = m.sign * d
    open_ = replace(_unjudged(d, column, margin, alpha, variant, reference), level=level)
    fewest = max(statistics.pairs_for_floor(alpha, test=test, sides=1), 3)
    if open_.n < fewest:
        missing = fewest - open_.n
        text = f"{open_.n} paired seeds cannot settle it at alpha = {alpha:g}; at least {missing} more are needed"
        return replace(open_, missing=missing, words=text)
    p_pass = float(statistics.noninferiority(goodness, margin, test))
    p_worse = float(statistics.decide(goodness, test, "less"))
    open_ = replace(open_, p_worse=p_worse)
    shown = f"margin {m.text(margin)}"
    # Differences that are all 0 leave a t test no spread.
    if p_pass <= level or not np.any(d):
        return replace(open_, verdict=PASS, words=f"not worse by more than the {shown}")
    if p_worse <= level:
        return replace(open_, verdict=REGRESSION, words=f"worse, and not shown to be within the {shown}")
    room = margin + min(0.0, goodness.mean())
    sd = float(goodness.std(ddof=1))
    needed = power.pairs_needed(sd, room, 2 * alpha, test) if room > 0 else None
    missing = max(1, needed - open_.n) if needed else 0
    more = f"about {missing} more are needed" if missing else "the estimate lies at or beyond the margin: more runs"
    return replace(open_, missing=missing, words=f"{open_.n} paired seeds cannot settle it; {more}")


def judge_together(checks: list[Check], alpha: float) -> list[Check]:
    """The same checks, a regression only where it stands against all that is judged beside it (Holm).

    To pass needs no such correction: the gate passes where every check does.
    """
    scale = [alpha / c.level if c.level else math.inf for c in checks]  # a look that has nothing left finds nothing
    adjusted = statistics.holm([c.p_worse * s for c, s in zip(checks, scale, strict=True)])
    count = int(np.isfinite([c.p_worse for c in checks]).sum())
    judged = []
    for c, p in zip(checks, adjusted, strict=True):
        if c.verdict == REGRESSION and p > alpha:
            text = (
                f"worse by itself (p = {c.p_worse:.3g}), not among the {count} that are judged together (Holm {p:.3g})"
            )
            c = replace(c, verdict=UNKNOWN, missing=max(1, c.missing), words=text)
        judged.append(c)
    return judged


def survivors(c: Check, failed: int, pairs: int) -> Check:
    """The check of the runs that survived, where some did not: it is no pass."""
    if not failed:
        return c
    text = f"{failed} of {pairs} runs failed where their partner finished; of the others: {c.words}"
    return replace(
        c, failed=failed, verdict=FAILED if c.verdict in (PASS, UNKNOWN) else c.verdict, missing=0, words=text
    )


def unchanged(d: ArrayLike, column: str, margin: float, alpha: float, variant: str, reference: str) -> Check:
    """The check of runs that agree in everything that was measured, which needs no statistics."""
    return replace(_unjudged(d, column, margin, alpha, variant, reference), verdict=PASS, words="nothing changed")


def _unjudged(d: ArrayLike, column: str, margin: float, alpha: float, variant: str, reference: str) -> Check:
    """The numbers of a check, without a verdict yet."""
    d = np.asarray(d, float)
    found = Check(variant, reference, column, UNKNOWN, len(d), margin=margin)
    if not len(d):
        return found
    t = statistics.paired_t(d, confidence=1 - 2 * alpha)
    return replace(found, difference=float(d.mean()), low=float(t.low), high=float(t.high))
