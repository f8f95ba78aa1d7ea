"""The looks of a sequential study, as tables and in words."""

from __future__ import annotations

import math

from analysis.records import metrics
from analysis.records.looks import Look, Standing, number
from analysis.report.tables.table import Table
from analysis.verdicts.notation import level, probability

NAIVE = (
    "The mean difference of a study that stopped is inflated, the more the earlier it stopped: quote the repeated "
    "interval, which holds at every look."
)


def name(s: Standing) -> str:
    """`combined - kd`, or the name of an effect."""
    return f"{s['variant']} - {s['reference']}" if s["reference"] else s["variant"]


def looks_table(log: list[Look]) -> Table:
    """When the study looked, and what it had spent and found by then."""
    table = Table("Looks", ["look", "seeds", "runs", "failed", "level spent", "decided", "taken"])
    for look in log:
        decided = [f"{name(s)} {s['verdict']}" for s in look["standings"] if s["decided"] == look["look"]]
        spent = max((s["spent"] for s in look["standings"]), default=0.0)
        table.add(
            [
                f"{look['look']} of {len(look['looks'])}", str(len(look["seeds"])), str(look["runs"]),
                str(len(look["failed"])), f"{spent:.2g} of {level(look['alpha'])}",
                "; ".join(decided) or "-", look["taken"][:16].replace("T", " "),
            ],
            look["failed"],
        )  # fmt: skip
    first = log[0]
    table.notes.append(
        f"Looks at {', '.join(map(str, first['looks']))} seeds, {first['spending'].replace('_', '-')} spending, "
        f"{first['statistic']}; Holm by closed testing within a family. Failed runs count as the worst."
    )
    return table


def standings_table(look: Look) -> Table:
    """How every comparison stands at a look."""
    m = metrics.metric(look["primary"])
    ranks = look["statistic"] == "rank"
    confidence = f"{100 * (1 - look['alpha']):g} %"
    columns = ["family", "comparison", "n", f"mean {m.label} difference", *["sum of signed ranks"] * ranks, "boundary"]
    columns += [f"repeated {confidence} interval", "sequential p", "p of equivalence", "verdict"]
    table = Table(f"Look {look['look']}: {m.label}", columns)
    places = {(s["data"], s["model"]) for s in look["standings"]}
    for s in look["standings"]:
        place = f"{s['data']} x {s['model']}: " if len(places) > 1 else ""
        cells = [s["family"], place + name(s), str(s["n"]), _text(m, number(s["estimate"]))]
        cells += [f"{number(s['statistic']):+.1f}"] * ranks + [_boundary(m, number(s["boundary"]), ranks)]
        cells += [_interval(m, s), probability(s["p"])]
        cells += ["-" if s["p_equivalence"] is None else probability(s["p_equivalence"])]
        table.add([*cells, s["verdict"] + (f" (look {s['decided']})" if s["decided"] else "")])
    table.notes.append("p: sequential, Holm-adjusted in its family; the interval is of each comparison alone. " + NAIVE)
    return table


def _text(m: metrics.Metric, value: float) -> str:
    if math.isnan(value):
        return "-"
    return m.text(value, plus=True) if math.isfinite(value) else ("+inf" if value > 0 else "-inf")


def _interval(m: metrics.Metric, s: Standing) -> str:
    """The repeated interval, or what seeds say where most of them tie: ranks refute whatever would part these."""
    low, high = number(s["low"]), number(s["high"])
    if low < high:
        return f"[{_text(m, low)}, {_text(m, high)}]"
    differences = list(map(number, s["differences"]))
    higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return f"none: {higher} seeds higher, {lower} lower, the others tie"


def _boundary(m: metrics.Metric, value: float, ranks: bool) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if ranks else m.text(value)


def say_look(look: Look) -> list[str]:
    """A look in a few lines."""
    m = metrics.metric(look["primary"])
    lines = [f"look {look['look']} of {len(look['looks'])}, {len(look['seeds'])} seeds, {look['runs']} runs ended:"]
    for s in look["standings"]:
        lines.append(
            f"  [{s['family']}] {name(s)}: {s['verdict']} ({m.label} {_text(m, number(s['estimate']))}, repeated interval "
            f"{_interval(m, s)}, n = {s['n']}, sequential p = {probability(s['p'])})"
        )
    return lines


def ending(log: list[Look]) -> list[str]:
    """What is decided and what is not, and what these looks cannot tell."""
    last = log[-1]
    still = [s for s in last["standings"] if s["verdict"] == "open"]
    lines = say_look(last)
    if still:
        following = last["looks"][last["look"]]
        lines.append(f"The study goes on: its next look is at {following} seeds. Until then nothing new is judged.")
    else:
        lines.append(f"The study has ended at look {last['look']} of {len(last['looks'])}.")
    if last["failed"]:
        lines.append(f"{len(last['failed'])} runs failed, diverged or have no finite value: each counts as the worst.")
    return [*lines, NAIVE]
