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
from analysis.verdicts.words import difference

if TYPE_CHECKING:
    import pandas as pd

    from analysis.verdicts.contrast import Contrast


def contrast_table(found: list[Contrast], title: str) -> Table:
    """The full numbers of contrasts, a row each."""
    table = Table(
        title,
        ["comparison", "metric", "n", "mean ± sd", "reference", "difference [95 % CI]", "d_z", "P(better)",
         "p t", "p flip", "p", "p adj.", "floor adj.", "detectable", "n for margin", "verdict"],
    )  # fmt: skip
    for c in found:
        m = metrics.metric(c.metric)
        n = str(c.n) if c.n == c.pairs else f"{c.n} ({c.pairs} pairs)"
        table.add(
            [
                c.label, m.label, n, _side(c.mean_variant, c.sd_variant, m), _side(c.mean_reference, c.sd_reference, m),
                difference(c),
                _number(c.d_z, "{:+.2f}"), _number(c.superiority, "{:.2f}"),
                probability(c.p_t), probability(c.p_flip), probability(c.p), probability(c.p_adjusted),
                probability(c.floor_adjusted), "-" if math.isnan(c.detectable) else m.text(c.detectable),
                "-" if c.needed is None else str(c.needed), c.shown_verdict,
            ],
            c.runs,
        )  # fmt: skip
    table.notes.append(
        "Differences are variant minus reference over seeds; p decides (the larger of exact sign flip and skew-guarded "
        "t), p adj. is it after Holm (primary metric) or Benjamini-Hochberg; floor adj. is the least it could have been; "
        "detectable, n for margin: with 80 % power as the first of a family (or before Benjamini-Hochberg), for normal "
        "differences of this sd; verdicts in parentheses are exploratory."
        if not found or found[0].test == "guarded"
        else f"Differences are variant minus reference over seeds; the deciding test is {found[0].test}."
    )
    sets = sorted({number for c in found for number in c.sets})
    if len(sets) == 1:
        table.notes.append(f"Conditional on teacher set {sets[0]}.")
    return table


def family_tables(found: list[Contrast]) -> list[Table]:
    """The full numbers of contrasts, a table per family."""
    families = dict.fromkeys(c.family for c in found)
    return [contrast_table([c for c in found if c.family == name], f"Family: {name}") for name in families]


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
