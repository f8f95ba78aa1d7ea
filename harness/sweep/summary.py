"""The table at the end of a sweep: method x metric, mean and sd over seeds. Significance is analysis' business."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from harness.runtime.console import format_metric, one_line
from harness.store.identity import flatten, relevant
from harness.store.record import METRICS

HIGHER_IS_BETTER = ("acc",)
COST_REFERENCE = "ensemble_kd"


def arms(configs: list[dict[str, Any]]) -> list[str]:
    """A label for each run that equals another's where they differ in seed and teacher set only.

    The method's name, followed by every option that varies: among runs of this method for the method's own options,
    among all runs for the rest, None where a run does without.
    """
    flat = []
    for config in configs:
        options = flatten(relevant(config))
        flat.append({key: value for key, value in options.items() if key not in ("seed", "teachers.set")})
    shared = dict.fromkeys(key for options in flat for key in options if not key.startswith("method."))
    flat = [options | {key: None for key in shared if key not in options} for options in flat]
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


def data_of(config: dict[str, Any]) -> tuple[str, str]:
    """Which images a run is tested on: the set's name, and what makes others of it (of a folder where it lies, their
    size, a set's own options), as a text.
    """
    data = relevant(config)["data"]
    return data["name"], repr([data.get(key) for key in ("root", "image_size", "options")])


def teacher_sets(records: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """A record of each set of teachers, by images, names and weights: those of one name may have been trained again, or
    lie in several banks. Version 1 knows names only.
    """
    sets: dict[tuple[Any, ...], dict[str, Any]] = {}
    having = [record for record in records if {"teacher", "ensemble"} <= record["metrics"].keys()]
    for record in sorted(having, key=lambda record: "teacher_weights" not in record["provenance"]):
        names, weights = record["provenance"]["teachers"], record["provenance"].get("teacher_weights")
        alike = (data_of(record["config"]), tuple(names))
        if weights is not None or alike not in {(data, known) for data, known, _ in sets}:
            sets.setdefault((*alike, None if weights is None else tuple(map(weights.get, names))), record)
    return sets


def sweep_table(records: list[dict[str, Any]]) -> Any:
    """A rich table of the done records, a row an arm, in the order in which the arms came; those on the same images and
    network together, students of several passes apart from those of one. Among these the best mean is bold, as it is
    printed, unless all are the same.
    """
    from rich.markup import escape
    from rich.table import Table

    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for label, record in zip(arms([record["config"] for record in records]), records, strict=True):
        groups[label].append(record)
    means = {
        (label, metric): statistics.fmean(r["metrics"]["student"]["test"][metric] for r in group)
        for label, group in groups.items()
        for metric in METRICS
    }
    fields: dict[Any, list[str]] = defaultdict(list)
    passes = {label: max(r["cost"].get("inference_passes", 1) for r in group) for label, group in groups.items()}
    for label, group in groups.items():
        fields[data_of(group[0]["config"]), group[0]["config"]["model"], passes[label] > 1].append(label)
    best = set()
    for rivals in fields.values():
        for metric in METRICS:
            choose = max if metric in HIGHER_IS_BETTER else min
            printed = {label: format_metric(metric, means[label, metric]) for label in rivals}
            first = printed[choose(rivals, key=lambda label: means[label, metric])]
            if len(set(printed.values())) > 1:
                best |= {(label, metric) for label in rivals if printed[label] == first}
    costs = {label: statistics.median(r["cost"]["device_s"] for r in group) for label, group in groups.items()}
    reference = costs.get(COST_REFERENCE)

    places = {(data, model) for data, model, _ in fields}
    among = "" if len(places) == 1 else ", on each data set and network"
    table = Table(title=f"test data: mean ± sd over runs (best student in bold{among})", title_justify="left")
    table.add_column("method")
    for metric in METRICS:
        table.add_column("acc %" if metric == "acc" else metric, justify="right")
    table.add_column("n", justify="right")
    table.add_column(f"cost / {COST_REFERENCE}" if reference else "training s", justify="right")
    for rivals in fields.values():
        for label in rivals:
            cells = []
            for metric in METRICS:
                values = [r["metrics"]["student"]["test"][metric] for r in groups[label]]
                sd = f" ± {format_metric(metric, statistics.stdev(values))}" if len(values) > 1 else ""
                cell = format_metric(metric, means[label, metric]) + sd
                cells.append(f"[bold]{cell}[/bold]" if (label, metric) in best else cell)
            cost = f"{costs[label] / reference:.2f}" if reference else f"{costs[label]:.1f}"
            name = label if passes[label] == 1 else f"{label} ({passes[label]} passes)"
            table.add_row(escape(one_line(name)), *cells, str(len(groups[label])), cost)
        table.add_section()
    sets = teacher_sets(records)
    for who, label in (("teacher", "one teacher"), ("ensemble", "teacher ensemble")):
        if len({data for data, *_ in sets}) == 1:
            cells = [
                format_metric(m, statistics.fmean(r["metrics"][who]["test"][m] for r in sets.values())) for m in METRICS
            ]
            table.add_row(label, *cells, f"{len(sets)} set{'s' if len(sets) > 1 else ''}", "", style="dim")
    return table
