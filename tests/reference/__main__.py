"""`python -m tests.reference FILE.npz [FILE ...]`: exit status 1 if a quantity is out or was not computed."""

from __future__ import annotations

import sys
from zipfile import BadZipFile

from tests.reference.check import check


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        try:
            notes, results = check(path)
        except (OSError, ValueError, BadZipFile) as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed = True
            continue
        out = [result for result in results if not result.ok]
        print(path, *(f"  {note}" for note in notes), sep="\n")
        print(f"  {'quantity':<44} {'error':>9}  {'allowed':>7}")
        for result in results:
            print(f"  {result}")
        print(f"  {len(results)} quantities, " + (f"{len(out)} OUT" if out else "all ok"))
        failed |= bool(out) or not results
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
