"""Tables of an ablation: method x metric, costs, switches, and the contrasts, each a `Table` that prints in
five forms.

A Table is text by rows and columns, next to the hashes of the runs behind every row, so each number can be
traced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis import metrics, statistics
from analysis.pairing import pair
from analysis.records import value_at
from analysis.study import Study
from analysis.words import difference, probability

if TYPE_CHECKING:
    import pandas as pd

    from analysis.contrasts import Contrast

ALIKE = "~"  # not distinguishable from the best


@dataclass
class Table:
    """title; column names; rows of cells; the run hashes behind each row; bold cells; notes below."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    runs: list[list[str]]
    bold: set[tuple[int, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, cells: list[str], runs: list[str] | tuple[str, ...] = ()) -> None:
        self.rows.append(cells)
        self.runs.append(sorted({str(run) for run in runs}))


def mean_sd(values: np.ndarray, m: metrics.Metric) -> str:
    """`79.17 ± 0.24`; without sd at one value, `-` at none. sd with ddof = 1."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return "-"
    text = m.text(values.mean())
    return text if len(values) == 1 else f"{text} ± {m.text(values.std(ddof=1))}"


def blocks_of(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(`digits x preresnet_tiny`, its runs) for every data set x network."""
    return [(f"{data} x {model}", block) for (data, model), block in runs.groupby(["data", "model"], sort=True)]


def order_of(arms: list[str], study: Study) -> list[str]:
    """Arms as the study names them, then the five variants in the ladder's order, then by name."""
    named = [
        arm for family in study.families for arm in (*([family.reference] if family.reference else []), *family.arms)
    ]
    usual = ["kd", "ensemble_kd", "weight_averaging", "perturbation", "combined"]
    rank = {arm: i for i, arm in reversed(list(enumerate([*usual, *named])))}
    return sorted(arms, key=lambda arm: (rank.get(arm, len(rank) + 99), arm))


def ablation(
    runs: pd.DataFrame,
    study: Study,
    found: list[Contrast] | None = None,
    columns: tuple[str, ...] | None = None,
) -> list[Table]:
    """Method x metric, one table per data set x network.

    A cell: mean ± sd over all finished runs; the best in bold, and ~ on those that a paired test (Holm over
    the comparisons with the best; exploratory) does not distinguish from it. The column of differences to the
    baseline is the primary metric's, with the verdict of the study's own family where `found` has it.
    """
    result = []
    for name, block in blocks_of(runs):
        measured = [m.column for m in metrics.present(list(block.columns), columns) if m.column in block]
        measured = [column for column in measured if block[column].notna().any()]
        main = [column for column in measured if columns or column in (*metrics.MAIN, study.primary)]
        result.append(_ablation(name, block, study, found or [], main))
        extra = [column for column in measured if column not in main]
        if extra:
            result.append(_ablation(f"{name}: further measures", block, study, None, extra))
    return result


def _ablation(name: str, block: pd.DataFrame, study: Study, found: list[Contrast] | None, columns: list[str]) -> Table:
    done = block[block["status"] == "done"]
    study = study.complete(sorted(done["arm"].unique()))
    chosen = [metrics.metric(column) for column in columns]
    primary = metrics.metric(study.primary)
    paired = [f"{primary.label} - baseline [95 % CI]", "p", "verdict"] if found is not None else []
    table = Table(name, ["arm", "n", *(m.label for m in chosen), *paired], [], [])
    _references(table, done, chosen, study)
    first = len(table.rows)
    arms = order_of(list(block["arm"].unique()), study)
    for arm in arms:
        mine = done[done["arm"] == arm]
        cells = [arm + _mark(mine), str(len(mine)), *(_cell(mine, m) for m in chosen)]
        cells += _against_baseline(block, arm, study, found) if found is not None else []
        table.add(cells, tuple(mine["run"]))
    for j, m in enumerate(chosen):
        _mark_best(table, done, arms, m, first, j + 2, study)
    table.notes.append(
        f"Bold: best mean. {ALIKE}: not distinguishable from the best (exploratory). n: runs; paired tests use seeds."
    )
    if found is None:
        return table
    kind = "Holm over the family" if any(c.role == "primary" for c in found) else "Holm over the family, exploratory"
    table.notes.append(f"Difference and verdict: {primary.label} against {study.baseline}, paired; p: {kind}.")
    sets = sorted(done["teacher_set"].unique())
    if len(sets) == 1:
        table.notes.append(f"Conditional on teacher set {sets[0]}.")
    if (done["mixed"] != "").any():
        table.notes.append(f"* mixes, on request: {', '.join(sorted(set(','.join(done['mixed']).split(',')) - {''}))}.")
    return table


def _cell(runs: pd.DataFrame, m: metrics.Metric) -> str:
    """Mean and sd; a deep-ensemble equivalent that met its cap in any run is a lower bound."""
    capped = m.column == "dee" and (runs["dee"] >= runs["dee_cap"]).any()
    return (">= " if capped else "") + mean_sd(runs[m.column], m)


def _mark(runs: pd.DataFrame) -> str:
    return " *" if "mixed" in runs and (runs["mixed"] != "").any() else ""


def _references(table: Table, done: pd.DataFrame, chosen: list[metrics.Metric], study: Study) -> None:
    """Teacher and ensemble, one value per teacher set: what the students learned from.

    Teachers of one set differ where a factor does, so every value of a factor has rows of its own.
    """
    factors = dict.fromkeys(("teachers.size", *study.factors))
    made = {factor: [str(value_at(config, factor)) for config in done["config"]] for factor in factors}
    varying = [factor for factor, values in made.items() if len(set(values)) > 1]
    labels = [", ".join(["", *(f"{factor}={made[factor][i]}" for factor in varying)]) for i in range(len(done))]
    for who, title in (("teacher", "one teacher"), ("ensemble", "teacher ensemble")):
        names = [f"{who}_{m.column}" for m in chosen]
        there = [name for name in names if name in done]
        if not there:
            continue
        known = done.assign(_label=labels).dropna(subset=there, how="all")
        for label, alike in known.groupby("_label", sort=False):
            sets = alike.drop_duplicates("teacher_set")
            cells = [mean_sd(sets[name], m) if name in sets else "-" for name, m in zip(names, chosen, strict=True)]
            blank = [""] * (len(table.columns) - 2 - len(cells))
            table.add([f"({title}{label})", str(len(sets)), *cells, *blank], tuple(sets["run"]))


def _against_baseline(block: pd.DataFrame, arm: str, study: Study, found: list[Contrast]) -> list[str]:
    if arm == study.baseline:
        return ["", "", "baseline"]
    data, model = block["data"].iloc[0], block["model"].iloc[0]
    for c in found:
        if (c.data, c.model, c.variant, c.reference, c.metric) == (
            data,
            model,
            arm,
            study.baseline,
            study.primary,
        ):
            return [
                difference(c),
                probability(c.p_adjusted),
                c.verdict if c.role == "primary" else f"({c.verdict})",
            ]
    return ["", "", ""]


def _mark_best(
    table: Table,
    done: pd.DataFrame,
    arms: list[str],
    m: metrics.Metric,
    first: int,
    column: int,
    study: Study,
) -> None:
    means = done.groupby("arm")[m.column].mean().dropna() * m.sign
    if means.empty:
        return
    best = means.idxmax()
    others = [arm for arm in arms if arm != best and arm in means.index]
    p = []
    for arm in others:
        d = pair(done, {arm: 1.0, best: -1.0}, m.column).by_seed
        p.append(float(statistics.decide(d, study.test)) if len(d) > 1 else math.nan)
    table.bold.add((first + arms.index(best), column))
    for arm, q in zip(others, statistics.holm(p), strict=True):
        if not q <= study.alpha:  # NaN: no test, hence not distinguished
            table.rows[first + arms.index(arm)][column] += f" {ALIKE}"


def costs(runs: pd.DataFrame, study: Study) -> list[Table]:
    """What every arm costs, and its device time over the baseline's; a table per data set x network."""
    tables = []
    for name, block in blocks_of(runs[runs["status"] == "done"]):
        whole = study.complete(sorted(block["arm"].unique()))
        devices = sorted(block["device"].dropna().unique())
        hours = "device-hours a run" if devices == ["cpu"] or not devices else "GPU-hours a run"
        wanted = {
            "device_s": (hours, 1 / 3600, "{:.4f}"),
            "images_per_s": ("images/s", 1, "{:,.0f}"),
            "peak_memory_bytes": ("peak memory MiB", 2**-20, "{:,.0f}"),
            "parameters": ("parameters deployed", 1, "{:,.0f}"),
            "flops": ("MFLOPs deployed", 1e-6, "{:,.2f}"),
        }
        wanted = {key: value for key, value in wanted.items() if key in block and block[key].notna().any()}
        table = Table(f"{name}: cost", ["arm", "n", *(w[0] for w in wanted.values()), "time / baseline"], [], [])
        base = block.loc[block["arm"] == whole.baseline, "device_s"].mean() if "device_s" in block else math.nan
        for arm in order_of(list(block["arm"].unique()), whole):
            mine = block[block["arm"] == arm]
            cells = []
            for key, (_, scale, form) in wanted.items():
                value = mine[key].mean()
                cells.append("-" if math.isnan(value) else form.format(value * scale))
            ratio = mine["device_s"].mean() / base if "device_s" in mine else math.nan
            table.add(
                [arm, str(len(mine)), *cells, "-" if math.isnan(ratio) else f"{ratio:.2f}"],
                tuple(mine["run"]),
            )
        table.notes.append(f"Means over runs. Device: {', '.join(devices) or 'unknown'}; teachers are not counted.")
        if "cpu" in devices and "peak_memory_bytes" in wanted:
            table.notes.append("Peak memory on a CPU is that of the process, with all runs that it made before.")
        if len(devices) > 1:
            table.notes.append("Runs come from several devices: times and rates are not comparable.")
        tables.append(table)
    return tables


def cross(runs: pd.DataFrame, study: Study) -> Table | None:
    """Arm x (data set x network) on the primary metric; None where there is one block only."""
    done = runs[runs["status"] == "done"]
    groups = blocks_of(done)
    if len(groups) < 2:
        return None
    m = metrics.metric(study.primary)
    table = Table(f"{m.label} across data sets and networks", ["arm", *(name for name, _ in groups)], [], [])
    for arm in order_of(list(done["arm"].unique()), study.complete(sorted(done["arm"].unique()))):
        cells = [mean_sd(block.loc[block["arm"] == arm, m.column], m) for _, block in groups]
        table.add([arm, *cells], tuple(done.loc[done["arm"] == arm, "run"]))
    for j, (_, block) in enumerate(groups):
        means = block.groupby("arm")[m.column].mean().dropna() * m.sign
        if len(means):
            table.bold.add(([row[0] for row in table.rows].index(means.idxmax()), j + 1))
    return table


def contrast_table(found: list[Contrast], title: str) -> Table:
    """The full numbers of contrasts, a row each."""
    table = Table(
        title,
        ["comparison", "metric", "n", "mean ± sd", "reference", "difference [95 % CI]", "d_z", "P(better)",
         "p t", "p flip", "p", "p adj.", "floor adj.", "detectable", "n for margin", "verdict"],
        [], [],
    )  # fmt: skip
    for c in found:
        m = metrics.metric(c.metric)

        def side(mean: float, sd: float, m: metrics.Metric = m) -> str:
            if math.isnan(mean):
                return "-"
            return m.text(mean) + ("" if math.isnan(sd) else f" ± {m.text(sd)}")

        n = str(c.n) if c.n == c.pairs else f"{c.n} ({c.pairs} pairs)"
        table.add(
            [
                f"{c.variant} - {c.reference}" if c.reference else c.variant,
                m.label, n, side(c.mean_variant, c.sd_variant),
                side(c.mean_reference, c.sd_reference), difference(c),
                _number(c.d_z, "{:+.2f}"), _number(c.superiority, "{:.2f}"),
                probability(c.p_t), probability(c.p_flip), probability(c.p), probability(c.p_adjusted),
                probability(c.floor_adjusted), "-" if math.isnan(c.detectable) else m.text(c.detectable),
                "-" if c.needed is None else str(c.needed),
                c.verdict if c.role == "primary" else f"({c.verdict})",
            ],
            c.runs,
        )  # fmt: skip
    table.notes.append(
        "Differences are variant minus reference over seeds; p decides (the larger of exact sign flip "
        "and skew-guarded t), "
        "p adj. is it after Holm (primary metric) or Benjamini-Hochberg; floor adj. is the least it "
        "could have been; "
        "detectable, n for margin: with 80 % power as the first of a family (or before Benjamini-Hochberg), for normal "
        "differences of this sd; verdicts in parentheses are exploratory."
        if not found or found[0].test == "guarded"
        else f"Differences are variant minus reference over seeds; the deciding test is {found[0].test}."
    )
    sets = sorted({number for c in found for number in c.sets})
    if len(sets) == 1:
        table.notes.append(f"Conditional on teacher set {sets[0]}.")
    return table


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def switches(runs: pd.DataFrame, study: Study) -> list[Table]:
    """One factor at a time: arms `method[option=value]` with one changed option, paired with `method`.

    Exploratory unless a family of the study says otherwise; Holm over the switches of one block.
    """
    from analysis.contrasts import compare_family
    from analysis.study import Family

    tables = []
    for name, block in blocks_of(runs):
        present = sorted(block.loc[block["status"] == "done", "arm"].unique())
        changed = [arm for arm in present if "[" in arm and ", " not in arm and arm.split("[")[0] in present]
        if changed:
            family = Family(
                "switches", "pairs", pairs=tuple((arm, arm.split("[")[0]) for arm in changed), declared=False
            )
            found = compare_family(block, study, family, [study.primary])
            tables.append(contrast_table(found, f"{name}: one switch at a time, {metrics.metric(study.primary).label}"))
    return tables
