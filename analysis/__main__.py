"""`python -m analysis`: run records in, conclusions out.

python -m analysis runs                         tables and verdicts in the terminal
python -m analysis report runs -o report.html   one self-contained page
python -m analysis --help                       all the rest
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from analysis.arguments import parser
from analysis.commands import COMMANDS
from analysis.records.errors import AnalysisError, AnalysisWarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for bad input)."""
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
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        try:
            return COMMANDS[parsed.command](parsed)
        except (AnalysisError, PermissionError, IsADirectoryError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
