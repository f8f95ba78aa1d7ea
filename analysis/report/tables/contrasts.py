"""Tables of comparisons: all their numbers, one factor at a time, and the cells of a factorial."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.study import Family, Study
from analysis.report.order import blocks_of
from analysis.report.tables.table import Table
from analysis.verdicts.contrasts import compare_family
from analysis.verdicts.factorial import in_words
from analysis.verdicts.notation import probability
from analysis.verdicts.words import detectable, difference, needed, typical

if TYPE_CHECKING:
    import pandas as pd

    from analysis.verdicts.contrast import Contrast


def contrast_table(found: list[Contrast], title: str, wide: bool = False) -> Table:
    """Contrasts, a row each: what decides, or with `wide` all their numbers."""
    table = _wide(found, title) if wide else _narrow(found, title)
    sets = sorted({number for c in found for number in c.sets})
    if len(sets) == 1:
        table.notes.append(f"Conditional on teacher set {sets[0]}.")
    return table


def _narrow(found: list[Contrast], title: str) -> Table:
    table = Table(title, ["comparison", "metric", "n", "difference [95 % CI]", "typical", "p adj.", "verdict"])
    for c in found:
        m = metrics.metric(c.metric)
        middle = m.text(c.typical, True) if math.isfinite(c.typical) else "-"
        lost = f" ({c.n - c.survivors} with failed runs)" if c.failed else ""
        table.add(
            [c.label, m.label, f"{c.n}{lost}", difference(c), middle, probability(c.p_adjusted), c.shown_verdict],
            c.runs,
        )
    table.notes.append(
        "Variant minus reference over seeds; typical: Hodges-Lehmann; p adj.: of the deciding test, after Holm (primary "
        "metric) or Benjamini-Hochberg; verdicts in parentheses are exploratory. All numbers: contrasts --wide."
    )
    return table


def _wide(found: list[Contrast], title: str) -> Table:
    table = Table(
        title,
        ["comparison", "metric", "n", "mean ± sd", "reference", "difference [95 % CI]", "typical [95 % CI]", "rank p", "d_z",
         "P(better)", "p t", "p flip", "p", "p adj.", "floor adj.", "over teachers", "se images", "detectable",
         "n for margin", "verdict"],
    )  # fmt: skip
    for c in found:
        m = metrics.metric(c.metric)
        n = str(c.n) if c.n == c.pairs else f"{c.n} ({c.pairs} pairs)"
        n += f", {c.n - c.survivors} with failed runs" if c.failed else ""
        teachers = "-" if math.isnan(c.low_sets) else f"[{m.text(c.low_sets, True)}, {m.text(c.high_sets, True)}]"
        table.add(
            [
                c.label, m.label, n, _side(c.mean_variant, c.sd_variant, m), _side(c.mean_reference, c.sd_reference, m),
                difference(c), typical(c), probability(c.p_rank),
                _number(c.d_z, "{:+.2f}"), _number(c.superiority, "{:.2f}"),
                probability(c.p_t), probability(c.p_flip), probability(c.p), probability(c.p_adjusted),
                probability(c.floor_adjusted), teachers,
                "-" if math.isnan(c.error_images) else m.text(c.error_images),
                detectable(c) or "-", needed(c) or "-", c.shown_verdict,
            ],
            c.runs,
        )  # fmt: skip
    decides = (
        "the larger of exact sign flip and skew-guarded t" if not found or found[0].test == "guarded" else found[0].test
    )
    table.notes.append(
        f"Differences are variant minus reference over seeds without a failed run; typical: Hodges-Lehmann with its exact "
        f"interval, a failed run the worst, rank p: exact signed rank. p decides ({decides}; rank p where a run failed), "
        "p adj. is it after Holm (primary metric) or Benjamini-Hochberg; floor adj. is the least it could have been; over "
        "teachers: crossed random effects, 95 %; se images: standard error over test images; detectable, n for margin: with "
        "80 % power as the first of a family (or before Benjamini-Hochberg), for normal differences of the sd that was "
        "seen, and of its upper 80 % limit; verdicts in parentheses are exploratory."
    )
    return table


def family_tables(found: list[Contrast], wide: bool = False) -> list[Table]:
    """Contrasts, a table per family."""
    families = dict.fromkeys(c.family for c in found)
    return [contrast_table([c for c in found if c.family == name], f"Family: {name}", wide) for name in families]


def _side(mean: float, sd: float, m: metrics.Metric) -> str:
    if math.isnan(mean):
        return "-"
    return m.text(mean) + ("" if math.isnan(sd) else f" ± {m.text(sd)}")


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def switches(runs: pd.DataFrame, study: Study) -> list[Table]:
    """One factor at a time: arms `method[option=value]` with one changed option, paired with `method`.

    Exploratory unless a family of the study says otherwise; Holm over the switches of one block.
    """
    tables = []
    for name, block in blocks_of(runs):
        arms = present(block)
        pairs = [(arm, arm.split("[")[0]) for arm in arms if "[" in arm and ", " not in arm]
        pairs = tuple(pair for pair in pairs if pair[1] in arms)
        if pairs:
            family = Family("switches", "pairs", pairs=pairs, declared=False)
            found = compare_family(block, study, family, [study.primary])
            tables.append(contrast_table(found, f"{name}: one switch at a time, {metrics.metric(study.primary).label}"))
    return tables


def cell_tables(cells: pd.DataFrame, family: str, mine: list[Contrast]) -> list[Table]:
    """The 2 x 2 cell means, one table per (data, model)."""
    result = []
    m = metrics.metric(mine[0].metric)
    for (data, model), part in cells[cells["family"] == family].groupby(["data", "model"]):
        a = next(c.variant for c in mine if c.kind == "effect")
        here = [c for c in mine if (c.data, c.model) == (data, model)]
        table = Table(f"{data} x {model}: {family}, mean {m.label}", ["", f"no {a}", a, f"effect of {a}"])
        runs = [run for c in here for run in c.runs]
        for _, row in part.iterrows():
            table.add([row["level"], m.text(row[f"no {a}"]), m.text(row[a]), m.text(row["effect"], True)], runs)
        table.notes.append(in_words(here))
        result.append(table)
    return result
