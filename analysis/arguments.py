"""The words of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from analysis.records import limits
from analysis.records.texts import plain
from analysis.report.render import FORMS


def _pairs(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    return key, value


def _margin(text: str) -> tuple[str, float]:
    key, value = _pairs(text)
    return key, _limited(limits.margin, key, value)


def _alpha(text: str) -> float:
    return _limited(limits.alpha, text)


def _speed(text: str) -> float:
    return _limited(limits.tolerance, "speed", text)


def _memory(text: str) -> float:
    return _limited(limits.tolerance, "memory", text)


def _limited(check: Callable[..., float], *words: str) -> float:
    *names, text = words
    try:
        return check(*names, float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(plain(str(error))) from error


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < len(text) < 6 or not int(text):
        raise argparse.ArgumentTypeError(f"expected a positive number, not {text!r}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def parser(description: str) -> argparse.ArgumentParser:
    """The command line."""
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("runs", nargs="*", default=["runs"], help="folders of runs, or exported .csv / .parquet files")
    _selection(runs)
    forms = argparse.ArgumentParser(add_help=False)
    forms.add_argument("--format", choices=FORMS, default="text")
    forms.add_argument(
        "--metrics", type=_names, help="columns to show, e.g. acc,nll,ece (default: all that were measured)"
    )
    forms.add_argument("-o", "--output", help="write to this file instead of the terminal")

    top = argparse.ArgumentParser(prog="python -m analysis", description=description)
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=list(parents))

    command("table", "ablation, cost and factorial tables with verdicts (the default)", runs, forms)
    contrasts = command("contrasts", "every comparison on every metric", runs, forms)
    contrasts.add_argument("--wide", action="store_true", help="with all its numbers")
    blocks = command("blocks", "Friedman and Wilcoxon across data sets", runs, forms)
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
    regress.add_argument("--speed", type=_speed, default=0.30, help="tolerated relative loss of images/s (default .30)")
    regress.add_argument(
        "--memory", type=_memory, default=0.20, help="tolerated relative growth of memory (default .20)"
    )
    regress.add_argument("--no-cost", action="store_true", help="do not judge speed and memory")
    regress.add_argument("--alpha", type=_alpha, help="one-sided error level, below 0.5 (default: the baseline's)")
    compare = commands.add_parser("compare", help="two variants side by side, down to the images on which they differ")
    compare.add_argument("variant")
    compare.add_argument("reference")
    compare.add_argument("runs", nargs="*", default=["runs"])
    _selection(compare)
    compare.add_argument("--format", choices=FORMS, default="text")
    compare.add_argument("--metrics", type=_names)
    compare.add_argument("-o", "--output")
    compare.add_argument("--images", type=_count, default=15, help="how many images to list")
    simulate = commands.add_parser("simulate", help="measure the error rates of the tests themselves")
    simulate.add_argument("--full", action="store_true", help="the committed form (minutes) instead of the fast one")
    simulate.add_argument("--jobs", type=_count, default=1, help="processes")
    simulate.add_argument("-o", "--output", help="write the table (Markdown) to this file")
    return top


def _selection(to: argparse.ArgumentParser) -> None:
    to.add_argument("--study", metavar="FILE", help="YAML with a block `study:`, instead of what the records declare")
    to.add_argument("--where", type=_pairs, action="append", default=[], metavar="KEY=VALUE[,VALUE]",
                    help="only runs whose configuration has this value, e.g. train.epochs=40")  # fmt: skip
    to.add_argument("--allow-mixed", type=_names, default=(), metavar="KINDS", help="code,data,recipe,teachers or all")
