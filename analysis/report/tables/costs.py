"""What every arm costs: time, memory, and what is deployed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.records.arms import present
from analysis.records.study import Study
from analysis.report.order import blocks_of, order_of
from analysis.report.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd


def costs(runs: pd.DataFrame, study: Study) -> list[Table]:
    """What every arm costs, and its device time over the baseline's; a table per data set x network."""
    tables = []
    for name, block in blocks_of(runs[runs["status"] == "done"]):
        whole = study.complete(present(block))
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
        table = Table(f"{name}: cost", ["arm", "n", *(w[0] for w in wanted.values()), "time / baseline"])
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
