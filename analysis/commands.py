"""What each command does."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.texts import few, plain

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study
    from analysis.report.tables.table import Table

NARROW = 120  # characters, in which the comparisons fit unless all their numbers are asked for


def _load_all(arguments: argparse.Namespace) -> tuple[pd.DataFrame, Study]:
    """The runs, finished or not, and their study."""
    from analysis.records.declared import read_study, study_of
    from analysis.records.loading import load

    study = read_study(arguments.study) if arguments.study else None
    frame = load(*arguments.runs, study=study, where=dict(arguments.where), allow=arguments.allow_mixed)
    return frame, study or study_of(frame)


def _load(arguments: argparse.Namespace) -> tuple[pd.DataFrame, Study]:
    """The runs, and their study. Raises AnalysisError where none has finished."""
    from analysis.records.loading import failures

    frame, study = _load_all(arguments)
    if not (frame["status"] == "done").any():
        first = failures(frame).iloc[0]
        why = f" ({first['error']})" if first["error"] else ""
        raise AnalysisError(f"none of {len(frame)} runs has finished well: {first['run']} {first['status']}{why}")
    if study.sequential and arguments.command != "table":
        text = (
            "a sequential study: p and verdicts for a fixed number of seeds do not hold for it; `table` has its looks"
        )
        warnings.warn(text, AnalysisWarning, stacklevel=2)
    return frame, study


def _emit(
    arguments: argparse.Namespace, tables: list[Table], lines: Sequence[str] = (), width: int | None = None
) -> None:
    """Tables, and what they come to: the lines follow on a terminal and stand above in a file."""
    if arguments.format == "text" and not arguments.output:
        _print(tables, width)
        for line in lines:
            print(line)
        return
    from analysis.report.render import head, render

    text = head(lines, arguments.format) + render(tables, arguments.format)
    if arguments.output:
        _write(arguments.output, text)
    else:
        print(text)


def _print(tables: list[Table], width: int | None = None) -> None:
    """Tables on a terminal of any width, or in at most so many characters: wide tables in parts, narrow ones with names
    folded. A pipe has no width, and a narrow default would fold the numbers. Printed by Python, not by rich, which ends
    the program with status 1 where a pipe is closed.
    """
    from rich.console import Console

    from analysis.report.render import WIDE, split, terminal

    console = Console() if sys.stdout.isatty() else Console(width=width or WIDE)
    console.width = min(console.width, width or console.width)
    for table in tables:
        for part in [table] if width else split(table, console.width):
            with console.capture() as printed:
                console.print(terminal(part))
            print(printed.get(), end="")


def _write(path: str | Path, text: str) -> None:
    from analysis.records.outputs import write_output

    write_output(path, text)
    print(f"wrote {path}", file=sys.stderr)


def _looks(arguments: argparse.Namespace, frame: pd.DataFrame, study: Study) -> int:
    """A sequential study: its looks, and nothing of what came after the last of them."""
    from analysis.records.looks import LOOKS, read_looks
    from analysis.report.tables.sequential import ending, looks_table, standings_table
    from analysis.verdicts.sequential import changed, other_rules, strangers

    folders = [folder for folder in arguments.runs if Path(folder).is_dir()]
    if not folders:
        raise AnalysisError(f"a sequential study: its {LOOKS} lies in its folder, which is what to give")
    logs = [log for folder in folders if (log := read_looks(folder))]
    if len(logs) > 1:
        raise AnalysisError(f"{len(logs)} of these folders have a {LOOKS}: a study is one folder")
    if not logs:
        first = study.sequential.looks[0]
        print(
            f"a sequential study before its first look, at {first} seeds: {len(frame)} runs so far, nothing is judged"
        )
        return 0
    (log,) = logs
    if otherwise := other_rules(study, log[-1]):
        raise AnalysisError(f"the looks were taken at {otherwise} as the study declares: they are another study's")
    if other := changed(frame, study, log[-1]):
        raise AnalysisError(
            f"the runs of {other} are not those that look {log[-1]['look']} saw, and looks are shown beside no others"
        )
    lines = ending(log)
    if others := strangers(frame, study):
        lines.append(
            f"{len(others)} of these runs do not declare this study in their records ({few(others)}): who looked at them "
            "before is not known, and every verdict is exploratory."
        )
    _emit(arguments, [looks_table(log), *map(standings_table, log)], lines)
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from analysis.report.summary import summarise

    frame, study = _load(arguments)
    if study.sequential:
        return _looks(arguments, frame, study)
    view = summarise(frame, study, arguments.metrics)
    _emit(arguments, view.tables, view.lines)
    return 0


def _contrasts(arguments: argparse.Namespace) -> int:
    from analysis.records.oddities import oddities
    from analysis.report.tables.contrasts import family_tables
    from analysis.verdicts.contrasts import compute

    frame, study = _load(arguments)
    found = compute(frame, study, list(arguments.metrics) if arguments.metrics else None)
    _emit(arguments, family_tables(found, arguments.wide), oddities(frame), None if arguments.wide else NARROW)
    return 0


def _blocks(arguments: argparse.Namespace) -> int:
    from analysis.records.oddities import oddities
    from analysis.report.tables.blocks import block_tables
    from analysis.verdicts.blocks import across_blocks

    frame, study = _load(arguments)
    found = across_blocks(frame, arguments.metric or study.primary, alpha=study.alpha)
    _emit(arguments, block_tables(found), [found.words, *oddities(frame)])
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from analysis.report.page import build_report

    frame, study = _load(arguments)
    _write(arguments.output, build_report(frame, study, plain(f"python -m analysis {shlex.join(arguments.words)}")))
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from analysis.report.figures import gallery

    frame, study = _load(arguments)
    folder = Path(arguments.output)
    for drawn in gallery.everything(frame, study):
        for path in gallery.save(drawn.figure, folder / drawn.name):
            print(path)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from analysis.records.exports import export

    frame, _ = _load_all(arguments)
    print(f"wrote {export(frame, arguments.output)}: {len(frame)} runs", file=sys.stderr)
    return 0


def _freeze(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from analysis.records.baseline import freeze
    from analysis.records.metrics import require_measured

    frame, study = _load(arguments)
    require_measured(frame, dict(arguments.margin))
    study = replace(study, margins=study.margins | dict(arguments.margin))
    content = freeze(frame, study, arguments.output)
    arms = sorted({row["arm"] for row in content["runs"]})
    print(f"wrote {arguments.output}: {len(content['runs'])} runs of {', '.join(arms)}", file=sys.stderr)
    return 0


def _regress(arguments: argparse.Namespace) -> int:
    import pandas as pd

    from analysis.records.baseline import read_baseline
    from analysis.records.metrics import require_measured
    from analysis.records.oddities import oddities
    from analysis.records.uses import record_uses, uses_of
    from analysis.report.tables.gate import gate_table
    from analysis.verdicts import gate

    baseline = read_baseline(arguments.baseline_file)
    uses = uses_of(arguments.baseline_file, baseline)
    frame, _ = _load(arguments)
    require_measured(frame, dict(arguments.margin))
    alpha = baseline["alpha"] if arguments.alpha is None else arguments.alpha
    checks = gate.regress(
        baseline,
        frame,
        dict(arguments.margin) or None,
        arguments.reference,
        None if arguments.no_cost else {"speed": arguments.speed, "memory": arguments.memory},
        alpha,
        allow_recipe=bool({"recipe", "all"} & set(arguments.allow_mixed)),
        uses=uses,
    )
    _print([gate_table(checks, alpha)])
    for line in oddities(frame) + oddities(pd.DataFrame(baseline["runs"]), "frozen runs"):
        print(line)
    verdict = gate.outcome(checks)
    print(gate.say_age(baseline, uses, frame))
    if not record_uses(arguments.baseline_file, baseline, gate.judged(checks, frame)):
        text = f"{arguments.baseline_file}: nothing can be written beside it, so this use is not counted"
        warnings.warn(text, AnalysisWarning, stacklevel=1)
    print(f"verdict: {verdict}{gate.advice(checks)}")
    return gate.EXIT[verdict]


def _compare(arguments: argparse.Namespace) -> int:
    from analysis.records.metrics import present, require_measured
    from analysis.records.oddities import oddities
    from analysis.records.study import Family
    from analysis.report.order import blocks_of
    from analysis.report.tables.contrasts import contrast_table
    from analysis.report.tables.images import image_tables
    from analysis.verdicts.contrasts import compare_family
    from analysis.verdicts.images import compare_images

    frame, study = _load(arguments)
    require_measured(frame, [study.primary, *(arguments.metrics or ())])
    arms = sorted(frame["arm"].unique())
    for name in (arguments.variant, arguments.reference):
        if name not in arms:
            raise AnalysisError(f"no runs of {name!r}: there are {', '.join(arms)}")
    pair = Family("compare", "pairs", pairs=((arguments.variant, arguments.reference),), declared=False)
    shown: list[Table] = []
    lines: list[str] = []
    for name, block in blocks_of(frame):
        columns = list(arguments.metrics) if arguments.metrics else [m.column for m in present(list(block.columns))]
        found = compare_family(block, study, pair, [c for c in columns if c in block])
        shown.append(contrast_table(found, f"{name}: {arguments.variant} against {arguments.reference}"))
        lines += [c.words for c in found if c.metric == study.primary]
        try:
            images = compare_images(block, arguments.variant, arguments.reference)
        except AnalysisError as error:
            warnings.warn(f"{name}: not compared image by image: {error}", AnalysisWarning, stacklevel=1)
        else:
            shown += image_tables(images, arguments.images)
    _emit(arguments, shown, lines + oddities(frame))
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from analysis.inference import calibration

    text = calibration.run(full=arguments.full, jobs=arguments.jobs)
    if arguments.output:
        _write(arguments.output, text)
    else:
        print(text)
    return 0


COMMANDS = {
    "table": _table, "contrasts": _contrasts, "blocks": _blocks, "report": _report, "figures": _figures,
    "export": _export, "freeze": _freeze, "regress": _regress, "compare": _compare, "simulate": _simulate,
}  # fmt: skip
