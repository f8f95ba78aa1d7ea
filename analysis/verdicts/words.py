"""Verdicts as sentences, with what cannot be concluded said as plainly as what can."""

from __future__ import annotations

import math

from analysis.inference import statistics
from analysis.inference.resampling import ENOUGH
from analysis.records import metrics
from analysis.verdicts.contrast import Contrast
from analysis.verdicts.notation import level, p_equals, probability

_TESTS = {"guarded": "the deciding test", "sign_flip": "the sign-flip test", "t": "the paired t test"}
_INTERACTION = {
    "better": "the two factors help more together than their effects add up to",
    "worse": "the two factors help less together than their effects add up to",
    "equivalent": "the effects add up, within the margin",
    "inconclusive": "whether the effects add up is not known",
}
_EFFECT = {
    "better": "helps",
    "worse": "hurts",
    "equivalent": "changes nothing of interest",
    "inconclusive": "may or may not help",
}


def difference(c: Contrast) -> str:
    """`-0.0605 [-0.0819, -0.0391]`, in the printed unit of the metric."""
    m = metrics.metric(c.metric)
    if c.n == 0:
        return "no pairs"
    if math.isnan(c.low):
        return m.text(c.difference, plus=True)
    return f"{m.text(c.difference, plus=True)} [{m.text(c.low, plus=True)}, {m.text(c.high, plus=True)}]"


def sentence(c: Contrast) -> str:
    """The whole verdict of one contrast."""
    m = metrics.metric(c.metric)
    parts = [_claim(c, m.label)]
    parts += [text for text in (_limits(c), _teachers(c)) if text]
    return ("Exploratory: " if c.role == "exploratory" else "") + " ".join(parts)


def _claim(c: Contrast, label: str) -> str:
    if c.n == 0:
        return f"{_subject(c)}: no pairs on {label}."
    numbers = f"{label} {difference(c)}, n = {c.n}, {p_equals(c.p_adjusted, c.adjustment + ' p')}"
    small = c.p_equivalence <= c.alpha
    if c.kind == "interaction":
        return f"Interaction of {c.variant}: {_INTERACTION[c.verdict]} ({numbers})."
    if c.kind == "effect":
        tail = ", though by less than the margin" if small and c.verdict in ("better", "worse") else ""
        return f"Over both levels of the other factor, {c.variant} {_EFFECT[c.verdict]}{tail} ({numbers})."
    if c.verdict in ("better", "worse"):
        tail = ", though by less than the margin of interest" if small else ""
        return f"{c.variant} is {c.verdict} than {c.reference}{tail} ({numbers})."
    if c.verdict == "equivalent":
        m = metrics.metric(c.metric)
        return (
            f"{c.variant} and {c.reference} are equivalent within a margin of {m.text(c.margin)} "
            f"({numbers}, {p_equals(c.p_equivalence, 'equivalence p')})."
        )
    return f"{c.variant} against {c.reference} is inconclusive ({numbers})."


def _subject(c: Contrast) -> str:
    return f"{c.variant} against {c.reference}" if c.reference else c.variant


def _limits(c: Contrast) -> str:
    """What the data could not have shown, for contrasts that are not settled."""
    if c.verdict != "inconclusive" or c.n == 0:
        return ""
    m = metrics.metric(c.metric)
    enough = statistics.pairs_for_floor(c.alpha, c.family_size, c.test)
    if c.n == 1:
        return f"One seed says nothing about seeds; {enough} could."
    if c.floor_adjusted > c.alpha:
        ties = sum(value == 0 for value in c.by_seed)
        tied = f" with {ties} tied" if ties else ""
        family = f" in a family of {c.family_size}" if c.family_size > 1 else ""
        text = f"n = {c.n}{tied} cannot reach p < {level(c.alpha)} with this test{family}; {ties + enough} seeds would."
        if c.p_t * c.family_size <= c.alpha:
            text += f" (The paired t alone gives {p_equals(c.p_t)}, which rests on normal differences.)"
        return text
    parts = []
    if math.isfinite(c.detectable) and c.detectable > 0:
        # What else is found in its family makes Holm's step easier, and is what Benjamini-Hochberg's depends on.
        power = "80 % power" if c.family_size == 1 else "at least 80 % power"
        alone = ", before adjustment" if c.adjustment == "BH" else ""
        parts.append(f"A true difference of {m.text(c.detectable)} would have been found with {power}{alone}.")
    if c.margin and c.needed and c.needed > c.n:
        parts.append(f"Finding the margin of {m.text(c.margin)} as surely needs about {c.needed} seeds.")
    return " ".join(parts)


def _teachers(c: Contrast) -> str:
    m = metrics.metric(c.metric)
    if len(c.sets) < 2:
        return ""
    few = [what for what, count in (("sets", len(c.sets)), ("seeds", c.n)) if count < ENOUGH]
    narrow = f", too narrow with so few {' and '.join(few)}" if few else ""
    return (
        f"Over {len(c.sets)} teacher sets: same sign in {c.sets_agreeing}, hierarchical 95 % interval "
        f"[{m.text(c.low_sets, plus=True)}, {m.text(c.high_sets, plus=True)}]{narrow}."
    )


def limits(found: list[Contrast]) -> list[str]:
    """What holds for the whole set of contrasts, each said once."""
    if not found:
        return ["There is nothing to compare: no two arms have finished runs in common."]
    lines = []
    sets = sorted({number for c in found for number in c.sets})
    if len(sets) == 1:
        lines.append(
            f"All conclusions are conditional on teacher set {sets[0]}: "
            "other teachers may rank the variants differently."
        )
    elif sets:
        lines.append(
            f"Tests average each seed over its teacher sets ({', '.join(map(str, sets))}) and are conditional on these; "
            "the hierarchical interval also resamples the sets."
        )
    first = [c for c in found if c.role == "primary" and c.n > 0] or [c for c in found if c.n > 0]
    short = [c for c in first if c.floor_adjusted > c.alpha]
    if short:
        c = max(short, key=lambda c: (c.family_size, -c.n))
        enough = statistics.pairs_for_floor(c.alpha, c.family_size, c.test)
        lines.append(
            f"n = {c.n} cannot reach p < {level(c.alpha)} with {_TESTS[c.test]} in a family of {c.family_size} "
            f"(the smallest adjusted p is {probability(c.floor_adjusted)}); {enough} seeds would."
        )
    if any(c.test == "t" for c in found):
        lines.append("The deciding test is the paired t: it has no floor and rests on normal differences.")
    return lines
