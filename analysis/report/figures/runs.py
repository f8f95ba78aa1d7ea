"""Figures of what runs left behind: learning curves, reliability, paths between members, diversity."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from analysis.inference.statistics import paired_t
from analysis.records.arms import present
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.history import read_history
from analysis.records.predictions import Predictions, is_kept, read
from analysis.records.rows import read_barriers
from analysis.report.figures.style import DASHES, look, panels, plainly
from analysis.report.order import order_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.records.study import Study

BINS = 15
T = TypeVar("T")


@plainly
def curves(runs: pd.DataFrame, study: Study, column: str | None = None) -> Figure:
    """Left: mean learning curve of every arm. Right: paired difference to the baseline, 95 % t band.

    column: of the history, by default validation NLL, else validation accuracy, else the training loss.
    """
    import pandas as pd

    done = runs[runs["status"] == "done"]
    study = study.complete(present(done))
    parts = []
    for row, epochs in _readable(done, "the learning curves", lambda row: read_history(row.directory)):
        if "epoch" in epochs:
            parts.append(epochs.assign(arm=row.arm, pair=f"{row.teacher_set}/{row.seed}", seed=row.seed))
    whole = pd.concat(parts) if parts else pd.DataFrame()
    usual = ("validation_nll", "validation_acc", "loss")
    column = column or next((name for name in usual if name in whole), None)
    if column is None or column not in whole:
        raise AnalysisError("no run has kept a history to draw")
    whole = whole.dropna(subset=[column])
    arms = order_of(list(whole["arm"].unique()), study)
    figure, (left, right) = panels(2, width=3.8, height=2.9)
    base = whole[whole["arm"] == study.baseline].set_index(["epoch", "seed", "pair"])[column]
    for i, arm in enumerate(arms):
        mine = whole[whole["arm"] == arm].set_index(["epoch", "seed", "pair"])[column]
        mean = mine.groupby(level="epoch").mean()
        style = {**look(i), "markersize": 3, "markevery": max(1, len(mean) // 8)}
        left.plot(mean.index, mean, label=arm, linewidth=1.2, **style)
        paired = (mine - base).dropna() if arm != study.baseline else mine.iloc[:0]
        if paired.empty:
            continue
        by_seed = paired.groupby(level=["epoch", "seed"]).mean().unstack("seed").dropna(axis=1)
        t = paired_t(by_seed.to_numpy())
        right.plot(by_seed.index, t.mean, linewidth=1.2, **style)
        right.fill_between(by_seed.index, t.low, t.high, color=style["color"], alpha=0.12, linewidth=0)
    label = column.replace("_", " ")
    left.set_ylabel(label)
    right.set_ylabel(f"difference to {study.baseline}")
    right.axhline(0, color="black", linewidth=0.8)
    for axes in (left, right):
        axes.set_xlabel("epoch")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    return figure


@plainly
def reliability(runs: pd.DataFrame, study: Study) -> Figure:
    """Accuracy against confidence in 15 equal bins, a panel per arm, its runs pooled; bars are counts."""
    done = runs[runs["status"] == "done"]
    arms = order_of(list(done["arm"].unique()), study.complete(present(done)))
    pooled: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for arm in arms:
        stored = _readable(done[done["arm"] == arm], "the reliability diagram", _predictions)
        found = [(predictions.confidence, predictions.correct) for _, predictions in stored if predictions]
        if found:
            pooled[arm] = tuple(np.concatenate(side) for side in zip(*found, strict=True))
    if not pooled:
        raise AnalysisError("no run has kept its predictions")
    columns = min(3, len(pooled))
    rows = -(-len(pooled) // columns)
    figure, axes_all = panels(columns, rows, width=2.4, height=2.4)
    for axes, (arm, (confidence, correct)) in zip(axes_all, pooled.items(), strict=False):
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        filled = counts > 0
        accuracy = np.bincount(bins, correct, BINS)[filled] / counts[filled]
        mean = np.bincount(bins, confidence, BINS)[filled] / counts[filled]
        centres = (np.arange(BINS) + 0.5) / BINS
        axes.bar(centres, counts / counts.sum(), width=1 / BINS, color="0.85", edgecolor="0.7", linewidth=0.5)
        axes.plot([0, 1], [0, 1], "k--", linewidth=0.8)
        axes.plot(mean, accuracy, "o-", color="#0072B2", markersize=3, linewidth=1.2)
        ece = float((np.abs(accuracy - mean) * counts[filled]).sum() / counts.sum())
        axes.set_title(f"{arm}\npooled ECE {ece:.3f}", fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
    for axes in axes_all[len(pooled) :]:
        axes.set_visible(False)
    return figure


@plainly
def paths(runs: pd.DataFrame) -> Figure:
    """Loss on the straight line between two members' weights, as is and after re-estimating BN.

    A panel per arm with members; thin lines are runs, thick ones their mean. A bump is a barrier.
    """
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    t: list[float] = []
    done = runs[runs["status"] == "done"].sort_values("arm")
    for row, barriers in _readable(done, "the paths", lambda row: read_barriers(row.directory)):
        places = next((pair["t"] for pair in barriers.values()), t)
        if t and places != t:
            warnings.warn(
                f"left out of the paths: {row.run} was measured at other points", AnalysisWarning, stacklevel=3
            )
            continue
        for name in ("loss", "loss_bn"):
            lines = [np.array(pair[name], float) for pair in barriers.values() if pair.get(name)]
            if lines:
                t = places
                found.setdefault(row.arm, {}).setdefault(name, []).append(np.mean(lines, 0))
    if not found:
        raise AnalysisError("no run has measured loss barriers (evaluate.diagnostics=true)")
    figure, axes_all = panels(len(found), width=2.8, height=2.6, share_y=True)
    for axes, (arm, lines) in zip(axes_all, found.items(), strict=True):
        for i, (name, label) in enumerate((("loss", "as is"), ("loss_bn", "BN re-estimated"))):
            colour = look(2 * i)["color"]
            for line in lines.get(name, ()):
                axes.plot(t, line, color=colour, alpha=0.25, linewidth=0.7)
            if name in lines:
                mean = np.mean(lines[name], 0)
                axes.plot(t, mean, color=colour, linestyle=DASHES[i], linewidth=2, label=label)
        axes.set_title(arm, fontsize=8)
        axes.set_xlabel("t, from one member to another")
    axes_all[0].set_ylabel("test loss")
    axes_all[0].legend(fontsize=7)
    return figure


@plainly
def diversity(runs: pd.DataFrame) -> Figure:
    """Diversity among teachers (white) and among a student's members (filled).

    A panel per measure, with train, test and perturbed inputs; a point is a mean over runs, its bar the sd.
    """
    done = runs[runs["status"] == "done"]
    measures = [name for name in ("pairwise_kl", "disagreement", "ambiguity") if f"teachers_test_{name}" in done]
    if not measures:
        raise AnalysisError("no run has measured diversity (evaluate.diagnostics=true)")
    splits = [s for s in ("train", "test", "perturbed") if f"teachers_{s}_{measures[0]}" in done]
    figure, axes_all = panels(len(measures), width=2.9, height=2.9)
    handles: dict[str, object] = {}
    with_members = [
        arm
        for arm, part in done.groupby("arm")
        if f"members_{splits[0]}_{measures[0]}" in part and part[f"members_{splits[0]}_{measures[0]}"].notna().any()
    ]
    for axes, name in zip(axes_all, measures, strict=True):
        sources = [("teachers", done, "teachers")]
        sources += [(arm, done[done["arm"] == arm], "members") for arm in with_members]
        for i, (label, part, who) in enumerate(sources):
            columns = [f"{who}_{split}_{name}" for split in splits if f"{who}_{split}_{name}" in part]
            values = part[columns].astype(float)
            x = np.arange(len(columns)) + (i - (len(sources) - 1) / 2) * 0.12
            style = {**look(i), "linestyle": "none"}
            face = "white" if who == "teachers" else style["color"]
            sd = values.std(ddof=1).fillna(0)
            handles[label] = axes.errorbar(
                x, values.mean(), yerr=sd, markerfacecolor=face, capsize=2, label=label, **style
            )
        axes.set_xticks(range(len(splits)), splits)
        axes.set_title(name.replace("_", " ").replace("kl", "KL"), fontsize=9)
        axes.set_ylim(bottom=0)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _predictions(row: Any) -> Predictions | None:
    """None where there are none: older runs have kept none."""
    return read(row.directory, row.run) if is_kept(row.directory) else None


def _readable(runs: pd.DataFrame, where: str, read_one: Callable[[Any], T]) -> Iterator[tuple[Any, T]]:
    """The runs that have a directory, with what is read there; one that is damaged costs itself, and is named."""
    for row in runs.itertuples():
        if not isinstance(row.directory, str) or not row.directory:
            continue
        try:
            found = read_one(row)
        except AnalysisError as error:
            warnings.warn(f"left out of {where}: {error}", AnalysisWarning, stacklevel=4)
        else:
            yield row, found
