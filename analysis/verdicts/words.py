"""Verdicts as sentences, with what cannot be concluded said as plainly as what can."""

from __future__ import annotations

import math

from analysis.inference import statistics
from analysis.inference.power import MOST_SEEDS
from analysis.records import metrics
from analysis.verdicts.contrast import Contrast
from analysis.verdicts.notation import level, p_equals, probability

_TESTS = {"guarded": "the deciding test", "sign_flip": "the sign-flip test", "t": "the paired t test"}
_INTERACTION = {
    "better": "together the two help more than their effects add up to",
    "worse": "together the two help less than their effects add up to",
    "equivalent": "the effects add up, within the margin",
    "inconclusive": "whether the effects add up is open",
}
_EFFECT = {
    "better": "helps",
    "worse": "hurts",
    "equivalent": "changes nothing beyond the margin",
    "inconclusive": "may or may not help",
}


def difference(c: Contrast) -> str:
    """`-0.0605 [-0.0819, -0.0391]`, in the printed unit of the metric; over the seeds in which no run failed."""
    return _estimate(c, c.difference, c.low, c.high) if c.n else "no pairs"


def typical(c: Contrast) -> str:
    """The same of the typical run (Hodges-Lehmann), a failed one counted as the worst."""
    return _estimate(c, c.typical, c.low_typical, c.high_typical) if c.n else ""


def _estimate(c: Contrast, value: float, low: float, high: float) -> str:
    m = metrics.metric(c.metric)

    def text(x: float) -> str:
        failing = "variant" if (x > 0) != m.higher else "reference"
        return f"{failing} failed" if math.isinf(x) else m.text(x, plus=True)

    if math.isnan(value):
        return "none finished"
    return text(value) if math.isnan(low) else f"{text(value)} [{text(low)}, {text(high)}]"


def sentence(c: Contrast) -> str:
    """The whole verdict of one contrast."""
    parts = [claim(c), *(outcome.words for outcome in c.outcomes), _limits(c), _teachers(c)]
    return " ".join(part for part in parts if part)


def claim(c: Contrast) -> str:
    """The verdict itself, with its numbers."""
    return ("Exploratory: " if c.role == "exploratory" else "") + _claim(c, metrics.metric(c.metric).label)


def _claim(c: Contrast, label: str) -> str:
    if c.n == 0:
        return f"{_subject(c)}: no pairs on {label}."
    numbers = f"{label} {difference(c)}, n = {c.n}, {p_equals(c.p_adjusted, c.adjustment + ' p')}"
    if c.failed:
        means = f"{difference(c)} over {c.survivors} of {c.n} seeds without a failed run"
        means = means if c.survivors else f"in each of {c.n} seeds a run failed"
        rank = p_equals(c.p_adjusted, f"{c.adjustment} p of ranks, failed runs the worst,")
        numbers = f"{label} {means}; {rank}"
    elif c.outcomes:
        numbers += f"; typical {typical(c)}, {p_equals(c.p_rank, 'rank p')}"
    sets = f" for these {len(c.sets)} teacher sets" if len(c.sets) > 1 else ""
    small = c.p_equivalence <= c.alpha
    if c.kind == "interaction":
        return f"{c.variant}: {_INTERACTION[c.verdict]} ({numbers})."
    if c.kind == "effect":
        tail = ", though by less than the margin" if small and c.verdict in ("better", "worse") else ""
        where = " in the typical run" if c.failed and c.verdict != "inconclusive" else ""
        return f"Main effect: {c.variant} {_EFFECT[c.verdict]}{where}{sets}{tail} ({numbers})."
    if c.verdict in ("better", "worse"):
        tail = ", though by less than the margin" if small else ""
        if c.outcomes and not _holds_of_ranks(c):
            of_all = f"On average {c.variant} is {c.verdict} than {c.reference}"
            return f"{of_all}{sets}{tail}; of the typical run that is not shown ({numbers})."
        if c.outcomes:  # where some runs are lost, better is not said of all
            return f"The typical run of {c.variant} is {c.verdict} than that of {c.reference}{sets}{tail} ({numbers})."
        return f"{c.variant} is {c.verdict} than {c.reference}{sets}{tail} ({numbers})."
    if c.verdict == "equivalent":
        m = metrics.metric(c.metric)
        who = f"The typical runs of {c.variant} and {c.reference}" if c.failed else f"{c.variant} and {c.reference}"
        return (
            f"{who} are equivalent within the margin of {m.text(c.margin)}{sets} "
            f"({numbers}, {p_equals(c.p_equivalence, 'equivalence p')})."
        )
    return f"{c.variant} against {c.reference} is inconclusive ({numbers})."


def _holds_of_ranks(c: Contrast) -> bool:
    """Whether the typical run differs as well, and that way: where runs collapsed it is means that were tested."""
    return c.failed or (c.p_rank <= c.alpha and c.typical * c.difference > 0)


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
        parts.append(f"{c.n} seeds find a difference of {detectable(c)} with {power}{alone}")
    if c.margin and c.needed_high != c.n and needed(c):
        parts.append(f"the margin of {m.text(c.margin)} needs {needed(c)}" + ("" if parts else " seeds"))
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def detectable(c: Contrast) -> str:
    """`0.0100 to 0.0160`: at the sd that was seen, and at its upper 80 % limit; empty where no difference is."""
    m = metrics.metric(c.metric)
    if math.isnan(c.detectable):
        return ""
    return f"{m.text(c.detectable)} to {m.text(c.detectable_high)}"


def needed(c: Contrast) -> str:
    """`12 to 25`, `30 to more than 100`; empty where no margin was declared, or where the seeds are there."""
    if not c.margin or c.failed or c.n < 2 or (c.needed_high is not None and c.needed_high <= c.n):
        return ""
    low, high = (None if count is None or count > MOST_SEEDS else str(count) for count in (c.needed, c.needed_high))
    if low is None:
        return f"more than {MOST_SEEDS}"
    return low if low == high else f"{low} to {high or f'more than {MOST_SEEDS}'}"


def _teachers(c: Contrast) -> str:
    m = metrics.metric(c.metric)
    if len(c.sets) < 2 or math.isnan(c.low_sets):
        return ""
    beyond = "not established, " if c.low_sets <= 0 <= c.high_sets else ""
    return (
        f"For other teachers: {beyond}[{m.text(c.low_sets, plus=True)}, {m.text(c.high_sets, plus=True)}], "
        f"same sign in {c.sets_agreeing} of {len(c.sets)} sets."
    )


def too_few(found: list[Contrast]) -> str:
    """One sentence in place of all, where no comparison could have been established; empty elsewhere."""
    tried = [c for c in found if c.n]
    if not tried or any(c.floor_adjusted <= c.alpha or c.verdict != "inconclusive" for c in tried):
        return ""
    enough = max(statistics.pairs_for_floor(c.alpha, c.family_size, c.test) for c in tried)
    most, least = max(c.n for c in tried), min(c.floor_adjusted for c in tried)
    seeds = "1 seed" if most == 1 else f"{most} seeds"
    whose = f"these {len(tried)} comparisons" if len(tried) > 1 else "this comparison"
    return (
        f"Nothing can be established with {seeds}, whatever the differences: no p of {whose} "
        f"could have been below {probability(least)}; {enough} seeds could. The tables have the estimates."
    )


def limits(found: list[Contrast]) -> list[str]:
    """What holds for the whole set of contrasts, each said once."""
    if not found:
        return ["There is nothing to compare: no two arms have finished runs in common."]
    lines = []
    sets = sorted({number for c in found for number in c.sets})
    if len(sets) == 1:
        lines.append(f"All of this is about teacher set {sets[0]}: other teachers may rank the variants differently.")
    elif sets:
        lines.append(
            f"Tests average each seed over teacher sets {', '.join(map(str, sets))} and are about these; intervals for other "
            "teachers are those of crossed random effects."
        )
    first = [c for c in found if c.role == "primary" and c.n > 0] or [c for c in found if c.n > 0]
    short = [c for c in first if c.floor_adjusted > c.alpha]
    if short and not too_few(found):
        c = max(short, key=lambda c: (c.family_size, -c.n))
        enough = statistics.pairs_for_floor(c.alpha, c.family_size, c.test)
        lines.append(
            f"n = {c.n} cannot reach p < {level(c.alpha)} with {_TESTS[c.test]} in a family of {c.family_size} "
            f"(the smallest adjusted p is {probability(c.floor_adjusted)}); {enough} seeds would."
        )
    families = dict.fromkeys(c.family for c in found if c.role == "primary")
    if len(families) > 1:
        lines.append(
            f"Each of the {len(families)} families is held at {level(found[0].alpha)} by itself; all together err more often "
            "(three of shared arms: up to .08, see CALIBRATION.md)."
        )
    images = list({c.compared: c for c in reversed(first) if c.error_images > c.error_seeds}.values())[::-1]
    if images:
        m = metrics.metric(images[0].metric)
        names = "; ".join(f"{c.label} {m.text(c.error_images)} against {m.text(c.error_seeds)}" for c in images)
        lines.append(f"Other test images would change more than other seeds (standard errors of {m.label}): {names}.")
    if any(c.test == "t" for c in found):
        lines.append("The deciding test is the paired t: it has no floor and rests on normal differences.")
    return lines
