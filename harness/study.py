"""`python -m harness.study +sweep=NAME [OPTION=VALUE ...]`: a sweep that goes on until its question is answered.

The preset's study declares when it looks (`study.sequential`, see analysis/records/study.py). The seeds up to the next
look run for the arms that are still open; the look is taken, logged in the runs' `looks.jsonl`, and the study goes on or
stops. Between looks nothing is judged. Everything is on disk: killed, stopped or detached, the same command goes on.

A run that failed or diverged has ended, and counts as the worst. Where the machine was to blame and not the method,
remove its directory before the look. `harness.plan=true` shows the runs up to the next look, and what looking may save.
"""

from __future__ import annotations

import sys

from harness.runtime.console import run_command


def main(arguments: list[str] | None = None) -> int:
    """Run a sequential study; returns the exit status, as `python -m harness -m`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(__doc__, end="")
        return 0
    from harness.app import sweep_by  # torch, which help does not wait for
    from harness.sequential import StudySweeper

    return sweep_by(StudySweeper, arguments)


if __name__ == "__main__":
    run_command(main)
