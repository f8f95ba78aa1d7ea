"""One self-contained HTML page about a set of runs: question, verdicts, tables, figures, failures, provenance.

The page asks the network for nothing: styles and the sorting script are inside, figures are data URIs, and
its content security policy forbids everything else.
"""

from __future__ import annotations

import base64
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.loading import failures
from analysis.report.figures.gallery import everything
from analysis.report.figures.style import svg
from analysis.report.order import blocks_of
from analysis.report.render import as_html
from analysis.report.summary import place, summarise, told
from analysis.report.tables.contrasts import family_tables
from analysis.report.tables.table import Table, part

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study
    from analysis.verdicts.contrast import Contrast


def build_report(runs: pd.DataFrame, study: Study, command: str = "python -m analysis report") -> str:
    """The page as text. command: what made it, for the section on how to reproduce it."""
    from jinja2 import Environment

    study = study.complete(present(runs))
    view = summarise(runs, study)
    primary = [c for c in view.found if c.metric == study.primary]
    names = [name for name, _ in blocks_of(runs)]
    deciding = [_deciding(table, study) for table in view.tables if table.title in names]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("report.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        question=study.question or "What do these runs show?",
        primary=metrics.metric(study.primary).label,
        study=study,
        count=len(runs),
        done=int((runs["status"] == "done").sum()),
        verdicts=[_nothing(view.short)]
        if view.short
        else [_verdict(c, place(c, primary) + text) for c, text in told(primary)],
        sentences=view.factorials,
        limits=view.limits + view.missing,
        tables=[as_html(table, f"table-{i}") for i, table in enumerate(deciding + view.tables)],
        deciding=len(deciding),
        contrasts=[as_html(table) for table in family_tables(view.found, wide=True)],
        figures=[
            {"name": f.name, "title": f.title, "alt": f.alt, "uri": _uri(svg(f.figure))}
            for f in everything(runs, study, view.found)
        ],
        failures=_failures(runs),
        provenance=provenance(runs),
        commands=commands(runs),
        command=command,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _verdict(c: Contrast, words: str) -> dict[str, str]:
    return {"family": c.family, "verdict": c.verdict, "shown": c.shown_verdict, "words": words}


def _deciding(table: Table, study: Study) -> Table:
    """The table without the metrics that decide nothing, so that what was lost is in sight."""
    kept = {"acc", study.primary}
    others = {metrics.metric(column).label for column in metrics.MAIN if column not in kept}
    return part(table, [j for j, name in enumerate(table.columns) if name not in others])


def _nothing(words: str) -> dict[str, str]:
    return {"family": "", "verdict": "inconclusive", "shown": "inconclusive", "words": words}


def _uri(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _failures(runs: pd.DataFrame) -> str | None:
    failed = failures(runs)
    if failed.empty:
        return None
    table = Table("Runs that did not end well", ["run", "arm", "set", "seed", "status", "error"])
    for row in failed.itertuples():
        table.add([row.run, row.arm, str(row.teacher_set), str(row.seed), row.status, row.error or ""], [row.run])
    return as_html(table)


def provenance(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """What made these runs, as (name, values with counts)."""
    wanted: dict[str, Any] = {
        "code revision": "revision",
        "harness": "harness",
        "torch": "torch",
        "device": "device",
        "host": "host",
        "data": "data",
        "data and split": "data_fingerprint",
        "network": "model",
        "teacher sets": "teacher_set",
        "teachers in a set": "teacher_size",
    }
    lines = []
    for label, column in wanted.items():
        counts = Counter(str(value) for value in runs[column].dropna()) if column in runs else Counter()
        if counts:
            shown = [f"{value} ({n} runs)" if len(counts) > 1 else value for value, n in sorted(counts.items())]
            lines.append((label, ", ".join(shown[:12]) + (" ..." if len(shown) > 12 else "")))
    times = runs["started"].dropna(), runs["ended"].dropna()
    if len(times[0]) and len(times[1]):
        lines.append(("run between", f"{min(times[0])} and {max(times[1])}"))
    if runs.attrs.get("lost"):
        lines.append(("files gone", f"of {len(runs.attrs['lost'])} done runs; their records alone are counted"))
    if "device_s" in runs:
        lines.append(("device time", f"{runs['device_s'].sum() / 3600:.3f} hours over all runs, teachers not counted"))
    return lines


def commands(runs: pd.DataFrame) -> list[tuple[str, int]]:
    """The distinct command lines that made the runs, with how many runs each made, most first."""
    return Counter(_typed(str(c)) for c in runs["command"].dropna()).most_common()


def _typed(command: str) -> str:
    """A recorded command line as one types it: a module's path back to `python -m MODULE`."""
    program, _, rest = command.partition(" ")
    if program.endswith("/__main__.py"):
        program = f"python -m {program.split('/')[-2]}"
    return f"{program} {rest}".strip()
