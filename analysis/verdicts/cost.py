"""What a variant costs against the baseline: speed and memory, where a comparison is fair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.verdicts.check import PASS, REGRESSION, Check

if TYPE_CHECKING:
    import pandas as pd

COST_MARGINS = {"speed": 0.30, "memory": 0.20}  # relative; speed is noisy on shared machines


def compare_cost(arm: str, other: str, joined: pd.DataFrame, margins: dict[str, float]) -> list[Check]:
    """Speed and memory of matched runs as ratios new / old, each the median over pairs.

    joined: a row per pair, columns `*_old` and `*_new`. margins: of COST_MARGINS, the largest relative loss.

    Between hosts, throughput tells more of the machines than of the code, so it is not compared; neither is
    memory on a CPU, where the peak is that of a process with all the runs it made.
    """
    found = []
    same = joined[joined["device_old"] == joined["device_new"]]
    here = same[same["host_old"] == same["host_new"]] if "host_old" in same else same
    for name, column, rows, sign in (
        ("speed", "images_per_s", here, 1),
        ("memory", "peak_memory_bytes", same[same["device_new"] != "cpu"], -1),
    ):
        if name not in margins or f"{column}_old" not in joined:
            continue
        old = rows[f"{column}_old"].astype(float)
        ratio = (rows[f"{column}_new"] / old)[old > 0].dropna()
        if not len(ratio):
            continue
        value = float(ratio.median())
        bad = value < 1 - margins[name] if sign > 0 else value > 1 + margins[name]
        text = f"{value:.2f} of the baseline's {name}, margin {margins[name]:.0%}"
        verdict = REGRESSION if bad else PASS
        found.append(Check(arm, other, name, verdict, len(ratio), value, margin=margins[name], words=text))
    return found
