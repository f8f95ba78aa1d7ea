"""The order in which people read: a data set x network at a time, and arms in it from the plainest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.records.study import Study

if TYPE_CHECKING:
    import pandas as pd


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
