"""`python -m harness.tune +sweep=NAME [OPTION=VALUE ...]`: options for methods, chosen on validation data.

The preset declares how many trials every method gets, and over what:

    tune:
      trials: 12                                          # the same for all; a grid with more has so many of them, drawn
      grids:
        kd: {temperature: [1, 2, 4, 8], alpha: [1, 0.9, 0.5]}
        combined: {temperature: [1, 2, 4, 8], step: [0.5, 1, 2]}
        supervised: {}                                    # nothing to tune: one trial

Every trial runs with each of the sweep's seeds and teacher sets, with any launcher; killed, stopped or detached, the same
command goes on. Of each method the trial of the lowest mean validation NLL is written to RUNS/tuned.yaml, which
`tuned=FILE` reads; no run that uses it may have one of its seeds. Test results are not looked at.
"""

from __future__ import annotations

import sys

from harness.runtime.console import run_command


def main(arguments: list[str] | None = None) -> int:
    """Tune; returns the exit status, as `python -m harness -m`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(__doc__, end="")
        return 0
    from harness.app import sweep_by  # torch, which help does not wait for
    from harness.tuning import TuneSweeper

    return sweep_by(TuneSweeper, arguments)


if __name__ == "__main__":
    run_command(main)
