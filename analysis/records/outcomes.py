"""How runs ended: what failed, and what collapsed.

A run that failed, diverged or measured no finite number is an outcome of its arm: the worst of its pair. One that was
interrupted has not ended. A collapsed run has finished, is in every mean, and is counted besides; what collapse means
is declared before the runs (`study.collapse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.store.record import METRICS

if TYPE_CHECKING:
    import pandas as pd

BAD_ENDS = ("failed", "diverged")
COLLAPSE = {"accuracy": 0.5, "barrier": 1.0}  # below this share of the teacher's; above this loss between two members


def ended(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that have an outcome, good or bad."""
    return runs[runs["status"].isin(("done", *BAD_ENDS))]


def failed(runs: pd.DataFrame, column: str = "nll") -> NDArray:
    """[runs] bool: failed, diverged, or done with something that is no number where every run has one."""
    bad = runs["status"].isin(BAD_ENDS).to_numpy()
    if column not in runs:
        return bad
    lacks = ~np.isfinite(runs[column].astype(float).to_numpy())
    said = [f"{column} is no number" in (notes if isinstance(notes, list) else ()) for notes in _notes(runs)]
    return bad | ((runs["status"] == "done").to_numpy() & lacks & ((column in METRICS) | np.array(said, bool)))


def collapsed(runs: pd.DataFrame, rule: Mapping[str, float]) -> NDArray:
    """[runs]: 1 where a finished run collapsed by the study's rule, 0 where it did not, NaN where nobody can tell: it has
    not finished well, or has nothing that the rule looks at (a student without a teacher and without members).
    """
    bad, known = np.zeros((2, len(runs)), bool)
    if {"acc", "teacher_acc"} <= set(runs) and "accuracy" in rule:
        own, teacher = runs["acc"].astype(float).to_numpy(), runs["teacher_acc"].astype(float).to_numpy()
        bad, known = own < rule["accuracy"] * teacher, np.isfinite(own) & np.isfinite(teacher)
    if "barrier_max" in runs and "barrier" in rule:
        barrier = runs["barrier_max"].astype(float).to_numpy()
        bad, known = bad | (barrier > rule["barrier"]), known | np.isfinite(barrier)
    return np.where(known & (runs["status"] == "done").to_numpy(), bad.astype(float), np.nan)


def add_collapse(runs: pd.DataFrame, primary: str, rule: Mapping[str, float]) -> pd.DataFrame:
    """The runs with a column `collapsed`, if that is what a study asks about."""
    return runs.assign(collapsed=collapsed(runs, rule)) if primary == "collapsed" else runs


def _notes(runs: pd.DataFrame) -> list:
    return list(runs["notes"]) if "notes" in runs else [None] * len(runs)
