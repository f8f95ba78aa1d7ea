"""`python -m harness.methods [--teachers M]`: every method, what it costs, and where it is from.

Those of this package, of `method=all` and `method=baselines`, and those that installed packages bring; with their default
options and M teachers; "-" where a method cannot learn from so many.

    passes      what a training step costs, in forward passes of one network on a batch; a backward pass counts 2
    training    all steps, relative to a supervised run by the same recipe; what teachers cost is not in it
    inference   passes of what is deployed
    options     of method.*, with their defaults; reestimate_bn, which all have, where it is on
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from harness.runtime.console import Console, complain, one_line, run_command

if TYPE_CHECKING:
    from methods.method import Method

EPOCHS = 1000  # of the recipe; of such, those of a method are a ratio
HEADER = ("method", "passes", "training", "inference", "options", "source")


class Row(NamedTuple):
    """A method: its name, its costs as they are shown, its options, and its source."""

    name: str
    passes: str
    training: str
    inference: str
    options: str
    source: str


def describe(name: str, method: Method, teachers: int) -> Row:
    if method.minimum_teachers() <= teachers <= (method.most_teachers or teachers):
        passes = method.passes(teachers)
        training = passes / 3 * method.epochs(EPOCHS, teachers) / EPOCHS
        costs = f"{passes:g}", f"{training:.2f}", f"{method.inference_passes(teachers):g}"
    else:
        costs = "-", "-", "-"
    options = [f"{key}={value}" for key, value in asdict(method).items() if value or key != "reestimate_bn"]
    return Row(name, *costs, " ".join(options) or "-", method.citation)


def table(rows: Sequence[Row], console: Console) -> None:
    """A drawn table on a terminal; elsewhere lines, for grep and sort."""
    if console.live:
        from rich.markup import escape
        from rich.table import Table

        drawn = Table(*HEADER)
        for row in rows:
            drawn.add_row(*(escape(one_line(cell)) for cell in row))
        for column in drawn.columns[1:4]:
            column.justify = "right"
        drawn.columns[0].no_wrap = True
        console.show(drawn)
        return
    cells = [HEADER, *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *numbers, options, source in cells:
        shown = (number.rjust(width) for number, width in zip(numbers, widths[1:4], strict=True))
        console.say("  ".join([name.ljust(widths[0]), *shown, options.ljust(widths[4]), source]).rstrip())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 where a method of another package cannot be loaded."""
    parser = argparse.ArgumentParser(
        "python -m harness.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teachers", type=int, default=4, metavar="M", help="size of the teacher set (default: 4)")
    teachers = parser.parse_args(arguments).teachers
    if teachers < 1:
        parser.error(f"--teachers must be at least 1, not {teachers}")
    import methods  # which brings torch, once a method is loaded

    rows, lost = [], 0
    for name in dict.fromkeys(name for members in methods.groups().values() for name in members):
        try:
            rows.append(describe(name, methods.load(name)(), teachers))
        except Exception as error:  # noqa: BLE001  a package of somebody's takes no other method with it
            complain(f"method={name}: {methods.target(name)} cannot be loaded: {type(error).__name__}: {error}")
            lost += 1
    table(rows, Console())
    return 1 if lost else 0


if __name__ == "__main__":
    run_command(main)
