"""`python -m analysis`: run records in, conclusions out.

python -m analysis runs                         tables and verdicts in the terminal
python -m analysis report runs -o report.html   one self-contained page
python -m analysis --help                       all the rest
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import AnalysisError, AnalysisWarning

WIDE = 260

if TYPE_CHECKING:
    import pandas as pd

    from analysis.study import Study
    from analysis.tables import Table


def _pairs(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    return key, value


def _margin(text: str) -> tuple[str, float]:
    from analysis import metrics

    key, value = _pairs(text)
    try:
        metrics.metric(key)
        number = float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not number > 0:
        raise argparse.ArgumentTypeError(f"the margin of {key} must be positive")
    return key, number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("runs", nargs="*", default=["runs"], help="folders of runs, or exported .csv / .parquet files")
    _selection(runs)
    forms = argparse.ArgumentParser(add_help=False)
    forms.add_argument("--format", choices=("text", "markdown", "latex", "csv", "html"), default="text")
    forms.add_argument(
        "--metrics", type=_names, help="columns to show, e.g. acc,nll,ece (default: all that were measured)"
    )
    forms.add_argument("-o", "--output", help="write to this file instead of the terminal")

    top = argparse.ArgumentParser(prog="python -m analysis", description=__doc__.split("\n\n")[0])
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=list(parents))

    command("table", "ablation, cost and factorial tables with verdicts (the default)", runs, forms)
    command("contrasts", "every comparison with all its numbers", runs, forms)
    blocks = command("blocks", "Friedman and Wilcoxon across data sets x networks", runs, forms)
    blocks.add_argument("--metric", help="default: the primary metric")
    report = command("report", "one self-contained HTML page", runs)
    report.add_argument("-o", "--output", default="report.html")
    figures = command("figures", "every figure that the runs allow, as PDF, SVG and PNG", runs)
    figures.add_argument("-o", "--output", default="figures", help="folder")
    export = command("export", "the table of runs as one .csv or .parquet file", runs)
    export.add_argument("-o", "--output", default="runs.csv")
    freeze = command("freeze", "write a baseline file for the regression gate", runs)
    freeze.add_argument("-o", "--output", default="baseline.json")
    freeze.add_argument("--margin", type=_margin, action="append", default=[], metavar="METRIC=LOSS")
    regress = command(
        "regress", "judge new runs against a baseline: exit 0 pass, 1 regression, 2 not enough runs", runs
    )
    regress.add_argument("--baseline-file", "--baseline", dest="baseline_file", required=True, metavar="FILE")
    regress.add_argument("--reference", help="the frozen variant that new variants are compared with")
    regress.add_argument("--margin", type=_margin, action="append", default=[], metavar="METRIC=LOSS")
    regress.add_argument("--speed", type=float, default=0.30, help="tolerated relative loss of images/s (default .30)")
    regress.add_argument("--memory", type=float, default=0.20, help="tolerated relative growth of memory (default .20)")
    regress.add_argument("--no-cost", action="store_true", help="do not judge speed and memory")
    regress.add_argument("--alpha", type=float, help="one-sided error level (default: the baseline's)")
    compare = commands.add_parser("compare", help="two variants side by side, down to the images on which they differ")
    compare.add_argument("variant")
    compare.add_argument("reference")
    compare.add_argument("runs", nargs="*", default=["runs"])
    _selection(compare)
    compare.add_argument("--format", choices=("text", "markdown", "latex", "csv", "html"), default="text")
    compare.add_argument("--metrics", type=_names)
    compare.add_argument("-o", "--output")
    compare.add_argument("--images", type=int, default=15, help="how many images to list")
    simulate = commands.add_parser("simulate", help="measure the error rates of the tests themselves")
    simulate.add_argument("--full", action="store_true", help="the committed form (minutes) instead of the fast one")
    simulate.add_argument("--jobs", type=int, default=1, help="processes")
    simulate.add_argument("-o", "--output", help="write the table (Markdown) to this file")
    return top


def _selection(to: argparse.ArgumentParser) -> None:
    to.add_argument("--study", metavar="FILE", help="YAML with a block `study:`, instead of what the records declare")
    to.add_argument("--where", type=_pairs, action="append", default=[], metavar="KEY=VALUE[,VALUE]",
                    help="only runs whose configuration has this value, e.g. train.epochs=40")  # fmt: skip
    to.add_argument("--allow-mixed", type=_names, default=(), metavar="KINDS", help="code,data,recipe,teachers or all")


def _load(arguments: argparse.Namespace, finished: bool = True) -> tuple[pd.DataFrame, Study]:
    """The runs, and their study. Raises AnalysisError where some must be `finished` and none is."""
    from analysis.records import failures, load
    from analysis.study import read_study, study_of

    study = read_study(arguments.study) if arguments.study else None
    frame = load(*arguments.runs, study=study, where=dict(arguments.where), allow=arguments.allow_mixed)
    if finished and not (frame["status"] == "done").any():
        first = failures(frame).iloc[0]
        why = f" ({first['error']})" if first["error"] else ""
        raise AnalysisError(f"none of {len(frame)} runs has finished well: {first['run']} {first['status']}{why}")
    return frame, study or study_of(frame)


def _emit(arguments: argparse.Namespace, tables: list[Table], before: Sequence[str] = ()) -> None:
    if arguments.output or arguments.format != "text":
        from analysis.render import render

        comment = {"latex": "% ", "csv": "# "}.get(arguments.format, "")
        head = "".join(f"{comment}{line}\n" for line in before)
        head = "".join(f"<p>{line}</p>\n" for line in before) if arguments.format == "html" else head
        text = (head + "\n" if head and arguments.format != "csv" else "") + render(tables, arguments.format)
        if arguments.output:
            _write(arguments.output, text)
        else:
            print(text)
        return
    _print(tables)
    for line in before:
        print(line)


def _print(tables: list[Table]) -> None:
    """Tables on a terminal of any width; a pipe has none, and a narrow default would fold the numbers."""
    from rich.console import Console

    from analysis.render import split, terminal

    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    for table in tables:
        for part in split(table, console.width):
            console.print(terminal(part))


def _write(path: str | Path, text: str) -> None:
    from harness.record import write_atomically

    write_atomically(Path(path), text)
    print(f"wrote {path}", file=sys.stderr)


def _table(arguments: argparse.Namespace) -> int:
    from analysis import summary

    frame, study = _load(arguments)
    view = summary.summarise(frame, study, arguments.metrics)
    _emit(arguments, view.tables, view.lines)
    return 0


def _contrasts(arguments: argparse.Namespace) -> int:
    from analysis.contrasts import compute
    from analysis.tables import contrast_table

    frame, study = _load(arguments)
    found = compute(frame, study, list(arguments.metrics) if arguments.metrics else None)
    families = list(dict.fromkeys(c.family for c in found))
    _emit(arguments, [contrast_table([c for c in found if c.family == f], f"Family: {f}") for f in families])
    return 0


def _blocks(arguments: argparse.Namespace) -> int:
    from analysis.blocks import across_blocks, as_tables

    frame, study = _load(arguments)
    found = across_blocks(frame, arguments.metric or study.primary, alpha=study.alpha)
    _emit(arguments, as_tables(found), [found.words])
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from analysis.report import build_report

    frame, study = _load(arguments)
    _write(arguments.output, build_report(frame, study, f"python -m analysis {shlex.join(arguments.words)}"))
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from analysis import figures

    frame, study = _load(arguments)
    folder = Path(arguments.output)
    for drawn in figures.everything(frame, study):
        for path in figures.save(drawn.figure, folder / drawn.name):
            print(path)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from analysis.records import export

    frame, _ = _load(arguments, finished=False)
    print(f"wrote {export(frame, arguments.output)}: {len(frame)} runs", file=sys.stderr)
    return 0


def _freeze(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from analysis.gate import freeze
    from analysis.metrics import require_measured

    frame, study = _load(arguments)
    require_measured(frame, dict(arguments.margin))
    study = replace(study, margins=study.margins | dict(arguments.margin))
    content = freeze(frame, study, arguments.output)
    arms = sorted({row["arm"] for row in content["runs"]})
    print(f"wrote {arguments.output}: {len(content['runs'])} runs of {', '.join(arms)}", file=sys.stderr)
    return 0


def _regress(arguments: argparse.Namespace) -> int:
    from analysis import gate, metrics

    baseline = gate.read_baseline(arguments.baseline_file)
    frame, _ = _load(arguments)
    metrics.require_measured(frame, dict(arguments.margin))
    alpha = baseline["alpha"] if arguments.alpha is None else arguments.alpha
    checks = gate.regress(
        baseline,
        frame,
        dict(arguments.margin) or None,
        arguments.reference,
        None if arguments.no_cost else {"speed": arguments.speed, "memory": arguments.memory},
        alpha,
        allow_recipe=bool({"recipe", "all"} & set(arguments.allow_mixed)),
    )
    _print([gate.as_table(checks, alpha)])
    verdict = gate.outcome(checks)
    print(f"verdict: {verdict}{gate.advice(checks) if verdict == gate.UNKNOWN else ''}")
    return gate.EXIT[verdict]


def _compare(arguments: argparse.Namespace) -> int:
    from analysis import predictions
    from analysis.contrasts import compare_family
    from analysis.metrics import present, require_measured
    from analysis.study import Family
    from analysis.tables import blocks_of, contrast_table

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
            images = predictions.compare_images(block, arguments.variant, arguments.reference)
        except AnalysisError as error:
            warnings.warn(f"{name}: not compared image by image: {error}", AnalysisWarning, stacklevel=1)
        else:
            shown += predictions.tables(images, arguments.images)
    _emit(arguments, shown, lines)
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from analysis import simulation

    text = simulation.run(full=arguments.full, jobs=arguments.jobs)
    if arguments.output:
        _write(arguments.output, text)
    else:
        print(text)
    return 0


COMMANDS = {
    "table": _table, "contrasts": _contrasts, "blocks": _blocks, "report": _report, "figures": _figures,
    "export": _export, "freeze": _freeze, "regress": _regress, "compare": _compare, "simulate": _simulate,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for bad input)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "table")
    parsed: Any = parser().parse_args(words)
    parsed.words = words
    with warnings.catch_warnings():
        warnings.simplefilter("always", AnalysisWarning)
        shown = set()

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if str(message) not in shown:
                shown.add(str(message))
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        try:
            return COMMANDS[parsed.command](parsed)
        except (AnalysisError, PermissionError, IsADirectoryError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
