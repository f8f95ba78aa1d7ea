"""The 2 x 2 factorial of two factors, e.g. weight averaging x perturbation.

With cells 0 (neither), A, B and AB: the main effect of A is ((A + AB) - (0 + B)) / 2, that of B likewise, and
the interaction is AB - A - B + 0, the difference between A's effect with B and without it. Each is a weighted
difference of matched runs, tested like any other; the three are one family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.pairing import pair
from analysis.records.study import Family, Study
from analysis.verdicts.contrast import Comparison, Contrast

if TYPE_CHECKING:
    import pandas as pd


def effects(family: Family) -> list[Comparison]:
    """Both main effects and the interaction."""
    neither, first, second, both = family.arms
    a, b = family.names
    return [
        Comparison("effect", a, "", {first: 0.5, both: 0.5, neither: -0.5, second: -0.5}),
        Comparison("effect", b, "", {second: 0.5, both: 0.5, neither: -0.5, first: -0.5}),
        Comparison("interaction", f"{a} x {b}", "", {both: 1.0, neither: 1.0, first: -1.0, second: -1.0}),
    ]


def cell_means(runs: pd.DataFrame, study: Study, column: str | None = None) -> pd.DataFrame:
    """Cell means of the study's factorials on runs that all four cells have.

    Returns a row per (family, data, model, level of the second factor): columns without and with the first
    factor, the effect of the first factor at that level, and n seeds.
    """
    import pandas as pd

    column = column or study.primary
    arms = present(runs)
    rows = []
    for family in study.complete(arms).families:
        if family.kind != "factorial" or family.absent(arms):
            continue
        neither, first, second, both = family.arms
        a, b = family.names
        for (data, model), block in runs.groupby(["data", "model"]):
            values = pair(block, dict.fromkeys(family.arms, 1.0), column).finished.values
            for level, without, with_ in ((f"no {b}", neither, first), (b, second, both)):
                rows.append(
                    {
                        "family": family.name,
                        "data": data,
                        "model": model,
                        "metric": column,
                        "level": level,
                        f"no {a}": values[without].mean(),
                        a: values[with_].mean(),
                        "effect": (values[with_] - values[without]).mean(),
                        "n": values.index.get_level_values("seed").nunique(),
                    }
                )
    return pd.DataFrame(rows)


def in_words(found: list[Contrast]) -> str:
    """One sentence from a factorial's three contrasts on one metric (main effects, then interaction)."""
    effects_ = [c for c in found if c.kind == "effect"]
    interaction = next((c for c in found if c.kind == "interaction"), None)
    if len(effects_) != 2 or interaction is None or not interaction.n:
        return "The factorial is not complete: some of its four cells have no runs in common."
    m = metrics.metric(effects_[0].metric)
    verbs = {
        "better": "improves it by {}",
        "worse": "worsens it by {}",
        "equivalent": "leaves it as it is (within the margin; {})",
        "inconclusive": "has no established effect (estimate {})",
    }
    parts = []
    for c in effects_:
        settled = c.verdict in ("better", "worse")
        parts.append(f"{c.variant} {verbs[c.verdict].format(m.text(abs(c.difference) if settled else c.difference))}")
    together = {
        "better": "together they do more than the two effects add up to",
        "worse": "together they do less than the two effects add up to",
        "equivalent": "the two effects add up",
        "inconclusive": "whether the effects add up remains open",
    }[interaction.verdict]
    unit = "" if effects_[0].role == "primary" else "Exploratory: "
    return f"{unit}On {m.label} (n = {interaction.n}), {parts[0]}, {parts[1]}, and {together}."
