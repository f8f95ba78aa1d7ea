"""The table at the end of a sweep: method x metric, mean and sd over seeds. Significance is analysis' business."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import Any

from harness.config import INCIDENTAL

METRICS = ("acc", "nll", "brier", "ece", "nll_ts", "ece_ts")
HIGHER_IS_BETTER = ("acc",)
COST_REFERENCE = "ensemble_kd"


def format_metric(metric: str, value: float) -> str:
    return f"{100 * value:.2f}" if metric == "acc" else f"{value:.4f}"


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as {"train.lr": 0.1, ...}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def arms(configs: list[dict[str, Any]]) -> list[str]:
    """A label for each run that equals another's where they differ in seed and teacher set only.

    The method's name, followed by every option that varies: among runs of this method for the method's own options,
    among all runs for the rest.
    """
    ignored = ("seed", "teachers.set", *INCIDENTAL)
    flat = [
        {
            key: value
            for key, value in flatten(config).items()
            if not f"{key}.".startswith(tuple(f"{i}." for i in ignored))
        }
        for config in configs
    ]
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for options in flat:
        for key, value in options.items():
            seen[options["method.name"] if key.startswith("method.") else "", key].add(repr(value))
    labels = []
    for options in flat:
        name = options["method.name"]
        varying = [
            f"{key}={value}"
            for key, value in options.items()
            if key != "method.name" and len(seen[name if key.startswith("method.") else "", key]) > 1
        ]
        labels.append(" ".join([name, *varying]))
    return labels


def sweep_table(records: list[dict[str, Any]]) -> Any:
    """A rich table of the done records, a row an arm, in the order in which the arms came."""
    from rich.table import Table

    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for label, record in zip(arms([record["config"] for record in records]), records, strict=True):
        groups[label].append(record)
    means = {
        (label, metric): statistics.fmean(r["metrics"]["student"]["test"][metric] for r in group)
        for label, group in groups.items()
        for metric in METRICS
    }
    # Arms compete with those on the same data and network.
    fields = {
        label: (group[0]["config"]["data"]["name"], group[0]["config"]["model"]) for label, group in groups.items()
    }
    rivals = {label: [other for other in groups if fields[other] == fields[label]] for label in groups}
    best = {}
    for label in groups:
        for metric in METRICS:
            choose = max if metric in HIGHER_IS_BETTER else min
            best[label, metric] = choose(means[rival, metric] for rival in rivals[label])
    costs = {label: statistics.median(r["cost"]["device_s"] for r in group) for label, group in groups.items()}
    reference = costs.get(COST_REFERENCE)

    table = Table(title="test data: mean ± sd over runs (best in bold)", title_justify="left")
    table.add_column("method")
    for metric in METRICS:
        table.add_column("acc %" if metric == "acc" else metric, justify="right")
    table.add_column("n", justify="right")
    table.add_column(f"cost / {COST_REFERENCE}" if reference else "training s", justify="right")
    for label, group in groups.items():
        cells = []
        for metric in METRICS:
            values = [r["metrics"]["student"]["test"][metric] for r in group]
            sd = f" ± {format_metric(metric, statistics.stdev(values))}" if len(values) > 1 else ""
            cell = format_metric(metric, means[label, metric]) + sd
            tied = math.isclose(means[label, metric], best[label, metric], rel_tol=1e-12)
            cells.append(f"[bold]{cell}[/bold]" if tied and len(rivals[label]) > 1 else cell)
        cost = f"{costs[label] / reference:.2f}" if reference else f"{costs[label]:.1f}"
        table.add_row(label, *cells, str(len(group)), cost)
    table.add_section()
    for who, label in (("teacher", "one teacher"), ("ensemble", "teacher ensemble")):
        sets = {
            (r["config"]["data"]["name"], tuple(r["provenance"]["teachers"])): r["metrics"][who]["test"]
            for r in records
            if who in r["metrics"]
        }
        if sets and len({data for data, _ in sets}) == 1:
            cells = [format_metric(m, statistics.fmean(found[m] for found in sets.values())) for m in METRICS]
            table.add_row(label, *cells, f"{len(sets)} set{'s' if len(sets) > 1 else ''}", "", style="dim")
    return table
