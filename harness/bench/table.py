"""What was measured, as tables."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    options = result["options"]
    title = (
        f"{options['model']}, batch {options['batch']}, M = {options['teachers']}, K = {options['classes']}, "
        f"{options['precision']}, "
        f"{options['compile'] or 'eager'}; {result['device']}, {result['threads']} threads, "
        f"torch {result['torch']}; medians of {options['rounds']} rounds; "
        f"matrix peak {result['peak_flops_per_s'] / 1e9:,.0f} GFLOP/s"
    )
    shown = Table(title=title, title_justify="left")
    columns = "method, step ms, images/s, ratio, floor, gap, pipeline, host, waits, memory MB, GFLOP/s, of peak"
    for k, column in enumerate(columns.split(", ")):
        shown.add_column(column, justify="right" if k else "left")
    for row in result["methods"]:
        shown.add_row(
            row["method"],
            f"{row['step_ms']:.1f} ± {100 * row['spread']:.1f} %",
            f"{row['images_per_s']:,.1f}",
            *(f"{row[name]:.2f}" for name in ("ratio", "floor", "gap")),
            *(f"{100 * row[name]:.1f} %" for name in ("pipeline_share", "host_share")),
            str(row["waits"]),
            f"{row['memory_bytes'] / 1e6:,.0f}",
            f"{row['flops_per_s'] / 1e9:,.0f}",
            f"{100 * row['peak_share']:.0f} %",
        )
    return shown


def ladder_table(results: dict[str, Any]) -> Any:
    from rich.table import Table

    first, *_ = results.values()
    shown = Table(title=f"images/s, and as a multiple of the first column; {first['device']}", title_justify="left")
    shown.add_column("method")
    for rung in results:
        shown.add_column(rung, justify="right")
    for method, rates in rates_by_method(results).items():
        known = [rate for rate in rates if rate is not None]
        shown.add_row(method, *("" if rate is None else f"{rate:,.1f} ({rate / known[0]:.2f})" for rate in rates))
    return shown


def rates_by_method(results: dict[str, Any]) -> dict[str, list[float | None]]:
    """Each method's images a second on every rung; None where it was not measured."""
    found = [{row["method"]: row["images_per_s"] for row in result["methods"]} for result in results.values()]
    names = dict.fromkeys(name for rates in found for name in rates)
    return {name: [rates.get(name) for rates in found] for name in names}
