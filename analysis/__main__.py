"""`python -m analysis`: run records in, conclusions out.

python -m analysis runs                         tables and verdicts in the terminal
python -m analysis report runs -o report.html   one self-contained page
python -m analysis --help                       all the rest
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from analysis.arguments import parser
from analysis.commands import COMMANDS
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.texts import plain

CLOSED = 141  # the exit status of a program whose reader went away, as with `| head`
STOPPED = 130  # and of one that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for bad input, or a file that cannot be read or written)."""
    os.environ["MPLBACKEND"] = "agg"  # not a notebook's own, which this environment need not have
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has not
            stream.reconfigure(errors="replace")  # an ASCII terminal loses characters, not results
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "table")
    parsed = parser(__doc__.split("\n\n")[0]).parse_args(words)
    parsed.words = words
    with warnings.catch_warnings():
        warnings.simplefilter("always", AnalysisWarning)
        shown = set()

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if str(message) not in shown:
                shown.add(str(message))
                _say(f"warning: {message}")

        warnings.showwarning = show
        try:
            status = COMMANDS[parsed.command](parsed)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            _let_go(sys.stdout)
            return CLOSED
        except KeyboardInterrupt:
            _say("stopped")
            return STOPPED
        except (AnalysisError, OSError) as error:
            name = getattr(error, "filename", None)
            _say(f"error: {name}: {error.strerror}" if name else f"error: {getattr(error, 'strerror', None) or error}")
            _let_go(sys.stdout)
            return 2


def _say(text: str) -> None:
    """Print to stderr; names in a message may hold what would command the terminal."""
    print("\n".join(map(plain, text.split("\n"))), file=sys.stderr)


def _let_go(stream: TextIO) -> None:
    """What a closed pipe or a full disk does not take goes nowhere, or the interpreter would complain at its end."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
