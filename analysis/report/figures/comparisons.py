"""Figures of comparisons: slopes, forest, interaction, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.inference.statistics import paired_t
from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.errors import AnalysisError
from analysis.records.pairing import pair
from analysis.report.figures.style import look, panels, plainly
from analysis.report.order import order_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.records.study import Family, Study
    from analysis.verdicts.contrast import Contrast


@plainly
def slopes(runs: pd.DataFrame, variant: str, reference: str, column: str = "nll") -> Figure:
    """A line per matched pair of runs, reference to variant; dashed where the variant is not better.

    runs: of one (data, model). Raises AnalysisError where there is no pair.
    """
    m = metrics.metric(column)
    values = pair(runs, {variant: 1.0, reference: -1.0}, column).finished.values * m.scale
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


@plainly
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
    labels = [c.label for c in rows]
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


@plainly
def interaction(runs: pd.DataFrame, family: Family, column: str = "nll") -> Figure:
    """The four cells of a factorial: mean, 95 % t interval, thin lines for seeds. Parallel: they add up."""
    m = metrics.metric(column)
    neither, first, second, both = family.arms
    values = pair(runs, dict.fromkeys(family.arms, 1.0), column).finished.values * m.scale
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


@plainly
def pareto(runs: pd.DataFrame, study: Study, column: str | None = None, cost: str = "device_s") -> Figure:
    """Quality against cost, a point per arm with the sd of both; the line is the Pareto front."""
    m = metrics.metric(column or study.primary)
    done = runs[runs["status"] == "done"]
    if cost not in done or not done[cost].notna().any():
        raise AnalysisError(f"no run has recorded {cost}")
    figure, (axes,) = panels(width=5.2, height=3.2)
    points = []
    arms = order_of(list(done["arm"].unique()), study.complete(present(done)))
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
