"""`python -m harness.verify RUN... [--train]`: does a record hold?

Each RUN is a finished run's directory, or a folder of them. Of each run

    its files     are those that its record knows by their digests, its record is as it was written
    its history   has the chosen epoch as the record has it
    its data      are those that it was trained on
    its numbers   come out again where the stored student is evaluated once more
    --train       and where it is trained once more, in a folder of its own (bit for bit on as many CPUs with the same threads),
                  with its diagnostics, shifted and unknown images

A line says what holds and what does not; the exit status is 1 where anything does not, 2 where there is nothing to verify.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.config import ConfigError
from harness.runtime.console import Console, complain, one_line, run_command
from harness.store.files import Damaged
from harness.store.runs import find_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m harness.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, or a folder of runs")
    parser.add_argument("--train", action="store_true", help="train each run once more, too")
    options = parser.parse_args(arguments)
    from harness.run.verification import Broken, Unclaimed, verify  # torch, which help does not wait for

    console = Console()
    places = []
    for folder in options.runs:
        if not folder.is_dir():
            complain(f"no folder {folder}")
            return 2
        places += find_runs(folder)
    if not places:
        complain(f"no runs in {', '.join(map(str, options.runs))}")
        return 2
    broken = unclaimed = 0
    for place in places:
        try:
            console.say(f"{one_line(place.name)}: {verify(place, options.train, console)}")
        except Unclaimed as error:
            unclaimed += 1
            console.say(f"{one_line(place.name)}: {error}")
        except (Broken, Damaged, ConfigError) as error:
            broken += 1
            console.say(f"{one_line(place.name)}: DOES NOT HOLD: {error}")
        except Exception as error:  # noqa: BLE001  whatever stands in the way of one run, the others are looked at
            broken += 1
            console.say(f"{one_line(place.name)}: COULD NOT BE VERIFIED: {type(error).__name__}: {error}")
    console.close()
    rest = f"; {unclaimed} claim no numbers" if unclaimed else ""
    console.say(f"{len(places) - broken - unclaimed} of {len(places)} runs hold{rest}")
    return 1 if broken else 2 if unclaimed == len(places) else 0


if __name__ == "__main__":
    run_command(main)
