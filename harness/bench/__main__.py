"""`python -m harness.bench [OPTION=VALUE ...]`: what a training step of every method costs, against what it must cost.

Each method trains with the harness's own Trainer on images of noise, all in one process, taking turns: what else the
machine does meets all of them alike. A row says

    step ms     median time of a step, and half the distance of its quartiles
    ratio       median over rounds of its time by the plain student's of the same round
    floor       the ratio that its forward and backward passes would have (Method.passes / 3)
    gap         ratio / floor: what the method costs beyond its passes
    pipeline    share of a step that making its batch takes
    host        share of a step in which the device does nothing; on a CPU, in which no operator runs (Python, autograd's
                bookkeeping)
    waits       times that a step waits for the device; on a CPU, numbers that Python reads out of tensors (the draw of a
                pair is one)
    memory      what a step needs beyond what lives between steps
    FLOP/s      of a step, and as a share of the best that a square matrix product reaches here in the same precision

`--naive` adds each method as one would first write it (harness/bench/naive.py), `--ladder` repeats all of it with one speed-up
more at a time (harness/bench/rungs.py), naive forms on the first rung and the fastest, `--json` prints one JSON object,
`--profile FOLDER` writes a trace of one step of each method, `--output FILE` writes the JSON there, too, of a ladder after
each rung.

    python -m harness.bench --acceptance FOLDER [OPTION=VALUE ...]

finds out everything about a GPU in eight minutes (harness/bench/acceptance.py), and writes FOLDER/acceptance.md and .json
after each part. Options there are those of its sweep, such as data=folder data.root=IMAGES. It ends with 0 where all parts
came to an end, with 1 where packages are missing, with 2 where a part was cut or failed. `--small` rehearses it on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="such as model=wrn28_4 batch=128 methods=kd")
    parser.add_argument("--naive", action="store_true", help="time the naive forms, too")
    parser.add_argument("--ladder", action="store_true", help="one speed-up more at a time")
    parser.add_argument(
        "--rungs", metavar="N,...", help="of the ladder only these, from 1; with all before them in force"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="write a trace of one step of each method")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON object to a file")
    parser.add_argument("--acceptance", type=Path, metavar="FOLDER", help="everything about a GPU, as one page")
    parser.add_argument("--small", action="store_true", help="with --acceptance: tiny sizes, on the CPU")
    given = parser.parse_intermixed_args(arguments)
    return accept(given) if given.acceptance else bench(given)


def accept(given: argparse.Namespace) -> int:
    from harness.bench import packages

    if missing := packages.find_missing():
        print(packages.explain(missing), file=sys.stderr)
        return 1
    from harness.bench.acceptance import Acceptance
    from harness.runtime.console import complain

    try:
        return Acceptance(given.acceptance, given.options, given.small).run()
    except OSError as error:
        complain(f"cannot write to {given.acceptance}: {error.strerror}")
        return 1


def bench(given: argparse.Namespace) -> int:
    # Here, so that the acceptance can say what is missing where some of this cannot be imported.
    from harness.bench.ladder import climb, measure
    from harness.bench.rungs import choose_rungs
    from harness.bench.subjects import read_options
    from harness.bench.table import ladder_table, table
    from harness.config import ConfigError
    from harness.runtime.console import Console, complain
    from harness.store.files import to_json, write_atomically

    def save(result: dict) -> bool:
        """Whether it is where it was asked for; what is measured is shown in any case."""
        try:
            if given.output:
                write_atomically(given.output, to_json(result, 1))
        except OSError as error:
            complain(f"cannot write to {given.output}: {error.strerror}")
            return False
        return True

    console = Console(sys.stderr if given.json else None)
    try:
        options = read_options(given.options)
        work = partial(climb, rungs=choose_rungs(given.rungs), save=save) if given.ladder else measure
        result = work(options, with_naive=given.naive, folder=given.profile, console=console)
    except (ConfigError, ValueError, OSError) as error:
        complain(error)
        return 1
    status = 0 if save(result) else 1
    if given.json:
        print(json.dumps(result))
        return status
    for one in result.values() if given.ladder else [result]:
        console.show(table(one))
    if given.ladder:
        console.show(ladder_table(result))
    return status


if __name__ == "__main__":
    from harness.runtime.console import run_command

    run_command(main)
