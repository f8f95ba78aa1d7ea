"""What a baseline was used for: `BASELINE.uses.jsonl` beside it, a line for each judged variant, appended, never rewritten.

One frozen baseline stands in all verdicts that it is used for, and a variant that is judged again with more seeds is
looked at more than once; the gate needs to know both. A line counts for the baseline whose digest it names, so that a
baseline which is frozen again begins anew.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from harness.store.files import Damaged, check_shape, read_json_lines, to_json
from harness.store.record import digest_of

Count = Annotated[int, Meta(ge=0, le=10**9)]


class Use(TypedDict):
    """A variant that was judged. subject: digest of what it is; runs: of its runs."""

    baseline: str
    time: str
    subject: str
    seeds: Count
    runs: str
    digest: str


def uses_of(path: str | Path, baseline: dict[str, Any]) -> list[Use]:
    """The uses of this very baseline, oldest first; lines that were cut short or changed count for nothing."""
    found = []
    with contextlib.suppress(Damaged):
        for line in read_json_lines(_place(path), Any):
            with contextlib.suppress(Damaged, ValueError):
                check_shape(line, Use, "a use")
                if line["digest"] == digest_of(line) and line["baseline"] == digest_of(baseline):
                    found.append(line)
    return found


def record_uses(path: str | Path, baseline: dict[str, Any], judged: Iterable[tuple[str, int, list[str]]]) -> bool:
    """Add what was judged, (subject, seeds, runs) each, unless it stands there; False where that cannot be written."""
    known = {(use["subject"], use["runs"]) for use in uses_of(path, baseline)}
    lines = []
    for subject, seeds, runs in judged:
        use = {
            "baseline": digest_of(baseline),
            "subject": subject,
            "seeds": seeds,
            "runs": digest_of_runs(runs),
        }
        if (subject, use["runs"]) not in known:
            use["time"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            lines.append(to_json(use | {"digest": digest_of(use)}))
    if not lines:
        return True
    try:
        descriptor = os.open(_place(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # What stands there may have been cut short within its line: lines of our own begin.
            os.write(descriptor, ("\n" + "\n".join(lines) + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def digest_of_runs(runs: Iterable[str]) -> str:
    """A digest of runs by their names, in any order."""
    return digest_of({"runs": sorted(map(str, runs))})


def _place(path: str | Path) -> Path:
    path = Path(path).resolve()
    return path.with_name(path.name + ".uses.jsonl")
