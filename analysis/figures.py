"""Figures of comparisons: slopes, forest, interaction, cost. Those of single runs are in `diagnostics`, and
here too.

Every function takes the table of runs (or contrasts) and returns a matplotlib Figure:

    figures.slopes(runs, "combined", "kd", "nll").savefig("slopes.pdf")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis import metrics
from analysis.diagnostics import curves, diversity, paths, reliability
from analysis.pairing import pair
from analysis.records import AnalysisError
from analysis.style import look, panels, save, svg
from analysis.tables import blocks_of, order_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.contrasts import Contrast
    from analysis.study import Family, Study

__all__ = [
    "Drawn", "curves", "diversity", "everything", "forest", "interaction", "pareto", "paths", "reliability",
    "save", "slopes", "svg",
]  # fmt: skip


class Drawn(NamedTuple):
    """A figure with a file name, a title, and what it shows for those who cannot see it."""

    name: str
    title: str
    alt: str
    figure: Figure


def slopes(runs: pd.DataFrame, variant: str, reference: str, column: str = "nll") -> Figure:
    """A line per matched pair of runs, reference to variant; dashed where the variant is not better.

    runs: of one (data, model). Raises AnalysisError where there is no pair.
    """
    m = metrics.metric(column)
    values = pair(runs, {variant: 1.0, reference: -1.0}, column).values * m.scale
    if values.empty:
        raise AnalysisError(f"{variant} and {reference} have no finished pair of runs in common")
    figure, (axes,) = panels()
    for (_, _), row in values.iterrows():
        better = (row[variant] - row[reference]) * m.sign > 0
        axes.plot(
            [0, 1],
            [row[reference], row[variant]],
            color="#0072B2" if better else "#D55E00",
            linestyle="-" if better else "--",
            marker="o",
            markersize=3,
            linewidth=1,
            alpha=0.8,
        )
    axes.plot([0, 1], [values[reference].mean(), values[variant].mean()], "k-D", linewidth=2.5, markersize=6)
    axes.set_xticks([0, 1], [reference, variant])
    axes.set_xlim(-0.3, 1.3)
    axes.set_ylabel(m.label)
    axes.set_title(f"{len(values)} pairs; black: mean", fontsize=9)
    return figure


def forest(found: list[Contrast], column: str | None = None) -> Figure:
    """Differences with 95 % intervals, a row per comparison, on one metric (default: the first's).

    Filled markers: established by the deciding test; the grey band: the margin of interest.
    """
    column = column or (found[0].metric if found else "nll")
    rows = [c for c in found if c.metric == column and c.n > 1]
    if not rows:
        raise AnalysisError(f"no comparison on {column} has two pairs")
    m = metrics.metric(column)
    figure, (axes,) = panels(width=6.4, height=0.9 + 0.27 * len(rows))
    several = len({(c.data, c.model) for c in rows}) > 1
    for i, c in enumerate(rows):
        settled = c.verdict in ("better", "worse")
        colour = {"better": "#0072B2", "worse": "#D55E00"}.get(c.verdict, "#444444")
        x, low, high = (value * m.scale for value in (c.difference, c.low, c.high))
        axes.errorbar(
            x,
            i,
            xerr=[[x - low], [high - x]],
            fmt={"better": "o", "worse": "s", "equivalent": "D"}.get(c.verdict, "o"),
            color=colour,
            markerfacecolor=colour if settled else "white",
            capsize=3,
        )
    labels = [(f"{c.variant} - {c.reference}" if c.reference else c.variant) for c in rows]
    if several:
        labels = [f"{label} ({c.data}, {c.model})" for label, c in zip(labels, rows, strict=True)]
    axes.set_yticks(range(len(rows)), [f"{c.family}: {label}" for label, c in zip(labels, rows, strict=True)])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=1)
    if rows[0].margin:
        axes.axvspan(-rows[0].margin * m.scale, rows[0].margin * m.scale, color="0.85", zorder=0)
    better = "right" if m.higher else "left"
    axes.set_xlabel(f"difference in {m.label}, 95 % interval\n(better: to the {better})")
    return figure


def interaction(runs: pd.DataFrame, family: Family, column: str = "nll") -> Figure:
    """The four cells of a factorial: mean, 95 % t interval, thin lines for seeds. Parallel: they add up."""
    from analysis.statistics import paired_t

    m = metrics.metric(column)
    neither, first, second, both = family.arms
    values = pair(runs, dict.fromkeys(family.arms, 1.0), column).values * m.scale
    if values.empty:
        raise AnalysisError(f"the factorial {family.name} has no seed that all four cells ran")
    by_seed = values.groupby(level="seed").mean()
    figure, (axes,) = panels(width=4.2, height=3.0)
    for i, (without, with_, label) in enumerate(
        ((neither, first, f"no {family.names[1]}"), (second, both, family.names[1]))
    ):
        style = look(2 * i)
        for _, row in by_seed.iterrows():
            axes.plot([0, 1], [row[without], row[with_]], color=style["color"], alpha=0.2, linewidth=0.8)
        t = paired_t(by_seed[[without, with_]].to_numpy().T)
        half = np.nan_to_num(t.high - t.mean)
        x = np.array([0, 1]) + (i - 0.5) * 0.04
        axes.errorbar(x, t.mean, yerr=half, label=label, capsize=3, linewidth=2, **style)
    axes.set_xticks([0, 1], [f"no {family.names[0]}", family.names[0]])
    axes.set_xlim(-0.3, 1.3)
    axes.set_ylabel(m.label)
    axes.legend()
    return figure


def pareto(runs: pd.DataFrame, study: Study, column: str | None = None, cost: str = "device_s") -> Figure:
    """Quality against cost, a point per arm with the sd of both; the line is the Pareto front."""
    m = metrics.metric(column or study.primary)
    done = runs[(runs["status"] == "done")]
    if cost not in done or not done[cost].notna().any():
        raise AnalysisError(f"no run has recorded {cost}")
    figure, (axes,) = panels(width=5.2, height=3.2)
    points = []
    arms = order_of(list(done["arm"].unique()), study.complete(sorted(done["arm"].unique())))
    for i, arm in enumerate(arms):
        mine = done.loc[done["arm"] == arm, [cost, m.column]].astype(float).dropna()
        if mine.empty:
            continue
        x, y = mine.mean()
        sd = mine.std(ddof=1).fillna(0)
        style = {**look(i), "linestyle": "none"}
        axes.errorbar(x, y * m.scale, xerr=sd[cost], yerr=sd[m.column] * m.scale, label=arm, capsize=2, **style)
        points.append((x, y * m.scale))
    front = _front(points, m.sign)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color="0.5", linewidth=1, zorder=0)
    axes.set_xlabel({"device_s": "device seconds a run"}.get(cost, cost.replace("_", " ")))
    axes.set_ylabel(m.label)
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


def _front(points: list[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """Points that no other beats in both cost and quality, by cost."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * y > sign * front[-1][1]:
            front.append((x, y))
    return front


def everything(runs: pd.DataFrame, study: Study, found: list[Contrast] | None = None) -> Iterator[Drawn]:
    """Every figure that these runs allow, in the order of the report. Figures without data are left out."""
    from analysis.contrasts import compute

    done = runs[runs["status"] == "done"]
    study = study.complete(sorted(done["arm"].unique()))
    m = metrics.metric(study.primary)
    found = compute(runs, study, [study.primary]) if found is None else found
    primary = [c for c in found if c.metric == study.primary]
    if any(c.n > 1 for c in primary):
        yield Drawn("forest", f"Differences in {m.label}", _forest_alt(primary, m), forest(primary, study.primary))
    blocks = blocks_of(done)
    for name, block in blocks:
        stem, where = (name.replace(" x ", "-") + "-", f" ({name})") if len(blocks) > 1 else ("", "")
        yield from _of_block(stem, where, name, block, study, primary)


def _of_block(
    stem: str, where: str, name: str, block: pd.DataFrame, study: Study, primary: list[Contrast]
) -> Iterator[Drawn]:
    m = metrics.metric(study.primary)
    for family in study.families:
        if family.kind == "factorial" and not family.absent(sorted(block["arm"].unique())):
            cells = ", ".join(f"{arm} {m.text(block.loc[block['arm'] == arm, m.column].mean())}" for arm in family.arms)
            yield from _try(
                f"{stem}interaction-{family.name}",
                f"{family.names[0]} x {family.names[1]}{where}",
                f"{m.label} of the four cells: {cells}.",
                lambda family=family: interaction(block, family, m.column),
            )
    done: set[tuple[str, str]] = set()
    for c in primary:
        if c.reference and f"{c.data} x {c.model}" == name and (c.variant, c.reference) not in done and c.n:
            done.add((c.variant, c.reference))
            yield from _try(
                f"{stem}slopes-{_slug(c.variant)}-{_slug(c.reference)}",
                f"{c.variant} against {c.reference}, pair by pair{where}",
                f"{m.label} per pair of runs: mean {m.text(c.mean_reference)} for {c.reference}, "
                f"{m.text(c.mean_variant)} for {c.variant}, {c.n} seeds.",
                lambda c=c: slopes(block, c.variant, c.reference, m.column),
            )
    others = (
        ("cost", f"{m.label} against cost", "A point per arm: mean device time and mean of the metric.",
         lambda: pareto(block, study)),
        ("curves", "Learning curves",
         "Validation metric by epoch, and its paired difference to the baseline.",
         lambda: curves(block, study)),
        ("reliability", "Reliability",
         "Accuracy by confidence in 15 bins, one panel per arm, all runs pooled.",
         lambda: reliability(block, study)),
        ("paths", "Loss along the path between members",
         "Loss on the straight line between pairs of members.",
         lambda: paths(block)),
        ("diversity", "Diversity of teachers and students",
         "Pairwise KL, disagreement and ambiguity by split.",
         lambda: diversity(block)),
    )  # fmt: skip
    for short, title, alt, draw in others:
        yield from _try(stem + short, title + where, alt, draw)


def _try(name: str, title: str, alt: str, draw: object) -> Iterator[Drawn]:
    """The figure, or nothing where its data are not there."""
    try:
        yield Drawn(name, title, alt, draw())
    except AnalysisError:
        return


def _forest_alt(found: list[Contrast], m: metrics.Metric) -> str:
    from analysis.words import difference

    parts = [
        f"{c.variant}{' minus ' + c.reference if c.reference else ''}: {difference(c)}, {c.verdict}" for c in found
    ]
    return f"Differences in {m.label} with 95 % intervals. " + "; ".join(parts) + "."


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")
