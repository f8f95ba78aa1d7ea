"""What an acceptance found, as a dict and as a page: first the card and the verdicts, then part by part."""

from __future__ import annotations

from typing import Any

from harness.bench.rungs import LADDER
from harness.bench.table import rates_by_method

METHOD = "combined"
FIRST = next(iter(LADDER))
FASTER, DATA, BUSY = 3.0, 0.03, 0.95  # what is wanted of the full recipe
Ladders = dict[int, dict[str, Any]]  # batch size -> rung -> its result


def describe(found: list[dict[str, Any]], small: bool) -> dict[str, Any]:
    """The acceptance's JSON: the machine, verdicts, and what each part found."""
    results = {part["name"]: part["result"] for part in found}
    return {"small": small, "machine": results.get("machine"), "verdicts": judge(results), "parts": found}


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Each thing that is wanted: whether it is met (None: not measured), and the number."""
    verdicts = []

    def add(wanted: str, met: bool | None, measured: str) -> None:
        verdicts.append({"wanted": wanted, "met": met, "measured": measured})

    checks = results.get("checks") or []
    passed = sum(check["passed"] for check in checks)
    add("all checks pass", passed == len(checks) if checks else None, f"{passed} of {len(checks)}")
    for batch, rungs in collect_ladders(results).items():
        rows = {rung: row for rung, result in rungs.items() for row in result["methods"] if row["method"] == METHOD}
        if not rows:
            continue
        best = max(rows, key=lambda rung: rows[rung]["images_per_s"])
        row, at = rows[best], f"B = {batch}, {best.strip('+ ')}"
        rate, slow = row["images_per_s"], rows.get(FIRST, {"images_per_s": None})["images_per_s"]
        add(
            f"{METHOD}, {at}: at least {FASTER:g} x the images/s of {FIRST}",
            None if slow is None else rate >= FASTER * slow,
            f"{rate:,.0f} images/s" + ("" if slow is None else f", {rate / slow:.2f} x"),
        )
        add(f"{METHOD}, {at}: data under {DATA:.0%}", row["pipeline_share"] < DATA, f"{row['pipeline_share']:.1%}")
        add(f"{METHOD}, {at}: no waits", row["waits"] == 0, f"{row['waits']} a step")
        busy = 1 - row["host_share"]
        add(f"{METHOD}, {at}: device busy over {BUSY:.0%}", busy > BUSY, f"{busy:.1%}")
    runs = results.get("sweep")
    done = sum(run["status"] == "done" for run in runs or [])
    add("every run of the sweep is done", done == len(runs) if runs else None, f"{done} of {len(runs or [])}")
    graphs = [run["captured"]["graphs"] > 0 for run in runs or [] if run.get("captured")]
    add("steps of the sweep's runs are captured", all(graphs) if graphs else None, f"{sum(graphs)} of {len(graphs)}")
    return verdicts


def collect_ladders(results: dict[str, Any]) -> Ladders:
    """What parts measured at the same batch size, together, in the order of their rungs."""
    ladders: Ladders = {}
    for name, result in results.items():
        for rung, measured in (result or {}).items() if name.startswith("ladder") else ():
            ladders.setdefault(measured["options"]["batch"], {})[rung] = measured
    return {batch: {rung: rungs[rung] for rung in LADDER if rung in rungs} for batch, rungs in sorted(ladders.items())}


def render(report: dict[str, Any]) -> str:
    """The page, in Markdown."""
    results = {part["name"]: part["result"] for part in report["parts"]}
    machine = report["machine"] or {}
    lines = [
        f"# {machine.get('card') or machine.get('processor') or 'unknown machine'}, {machine.get('date', 'undated')}",
        "",
    ]
    if report["small"]:
        lines += ["A rehearsal with tiny sizes on a CPU: the verdicts say nothing about a GPU.", ""]
    words = {True: "met", False: "**not met**", None: "not measured"}
    lines += rows_of(
        "wanted|verdict|measured", [(v["wanted"], words[v["met"]], v["measured"]) for v in report["verdicts"]]
    )
    parts = [(p["title"], p["status"], f"{p['seconds']:.0f}", p["why"] or "") for p in report["parts"]]
    lines += ["## Parts", "", *rows_of("part|ended|seconds|why", parts)]
    lines += ["## Machine", "", *rows_of("|", [(name, show(value)) for name, value in machine.items()])]
    lines += ["## Checks", "", *describe_checks(results.get("checks"))]
    for batch, rungs in collect_ladders(results).items():
        lines += [f"## Ladder at B = {batch}", "", *describe_ladder(rungs)]
    lines += [
        "## Runs beside each other",
        "",
        *describe_packing([results.get(f"packing{kind}") for kind in ("", "_mps")]),
    ]
    lines += ["## Sweep", "", *describe_runs(results.get("sweep"))]
    return "\n".join(lines)


def describe_checks(checks: list[dict[str, Any]] | None) -> list[str]:
    if not checks:
        return ["None reported.", ""]
    checks = sorted(checks, key=lambda check: check["check"])
    words = {True: "passed", False: "**failed**"}
    return rows_of(
        "check|what|verdict|measured|seconds",
        [(c["check"], c["title"], words[c["passed"]], show(c["measured"]), f"{c['seconds']:.1f}") for c in checks],
    )


def describe_ladder(rungs: dict[str, Any]) -> list[str]:
    """Images a second of every method on every rung, then one table a rung."""
    result = next(iter(rungs.values()))
    options = result["options"]
    lines = [
        f"{options['model']}, M = {options['teachers']}, K = {options['classes']}; images/s (times those of the first)",
        "",
    ]
    table = []
    for method, rates in rates_by_method(rungs).items():
        base = next(rate for rate in rates if rate is not None)
        table.append((method, *("" if rate is None else f"{rate:,.0f} ({rate / base:.2f})" for rate in rates)))
    lines += rows_of("|".join(["method", *rungs]), table)
    columns = "|".join(
        [
            "method",
            "step ms",
            "ratio",
            "gap",
            "data",
            "busy",
            "waits",
            "memory MB",
            "graphs MB",
            "TFLOP/s",
            "of peak",
            "warm-up s",
        ]
    )
    for rung, result in rungs.items():
        late, about = result["compiled_while_timed"], result["compilation"]
        lines += [
            f"**{rung}**, medians of {result['options']['rounds']} rounds; matrix peak {result['peak_flops_per_s'] / 1e12:,.1f} TFLOP/s"
        ]
        lines[-1] += f"; compiled: {show(about)}" if about else ""
        for row in result["methods"]:
            if row["captured"] and row["captured"]["failure"]:
                lines[-1] += f"; **{row['method']} was not captured: {row['captured']['failure']}**"
        lines[-1] += f"; **{late} graphs were still compiled while it was timed**" if late else ""
        lines += ["", *rows_of(columns, [describe_row(row) for row in result["methods"]])]
    return lines


def describe_row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["method"],
        f"{row['step_ms']:.2f} ± {row['spread']:.1%}",
        f"{row['ratio']:.2f}",
        f"{row['gap']:.2f}",
        f"{row['pipeline_share']:.1%}",
        f"{1 - row['host_share']:.1%}",
        str(row["waits"]),
        f"{row['memory_bytes'] / 1e6:,.0f}",
        f"{row['graphs_bytes'] / 1e6:,.0f}",
        f"{row['flops_per_s'] / 1e12:.2f}",
        f"{row['peak_share']:.0%}",
        f"{row['warm_up_s']:.1f}",
    )


def describe_packing(comparisons: list[dict[str, Any] | None]) -> list[str]:
    """Runs an hour against how many train at a time, without and with MPS."""
    found = [each for each in comparisons if each and each["cells"]]
    if not found:
        return ["Not measured.", ""]
    lines = [
        f"{' '.join(found[0]['options'])}; steps alone, a run taken as {found[0]['run_images']:,} images: starting processes and "
        "evaluating come on top.",
        "",
    ]
    table = []
    for each in found:
        kind = "MPS" if each["served_by_mps"] else "MPS asked for, **but not used**" if each["mps"] else "plain"
        first = each["cells"][0]["images_per_s"]
        for cell in each["cells"]:
            rate = cell["images_per_s"]
            table.append(
                (kind, cell["processes"], f"{rate:,.0f}", f"{rate / first:.2f}", f"{cell['runs_per_hour']:,.1f}")
            )
    if not any(each["mps"] for each in found):
        table.append(("MPS", "not measured", "", "", ""))
    return lines + rows_of("|processes|images/s|times one|runs an hour", table)


def describe_runs(runs: list[dict[str, Any]] | None) -> list[str]:
    if not runs:
        return ["No run left a record.", ""]
    table = []
    for run in runs:
        rate, peak, acc = run["images_per_s"], run["peak_memory_bytes"], run["acc"]
        captured = run.get("captured") or {"graphs": 0, "failure": None}
        table.append(
            (
                run["run"],
                run["status"],
                "" if acc is None else f"{acc:.2%}",
                "" if run["wall_s"] is None else f"{run['wall_s']:.1f}",
                "" if rate is None else f"{rate:,.0f}",
                "" if peak is None else f"{peak / 1e6:,.0f}",
                captured["failure"] or captured["graphs"],
            )
        )
    return rows_of("run|status|acc|wall s|images/s|peak memory MB|graphs captured", table)


def rows_of(header: str, rows: list[tuple[Any, ...]]) -> list[str]:
    """A table in Markdown, its columns' names separated by bars; and an empty line."""
    columns = header.split("|")
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *cells)] + [""]


def show(value: Any) -> str:
    """A value of JSON, in a cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(show, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
