"""What a baseline was used for: `BASELINE.uses.jsonl` beside it, a line for each judged variant, appended, never rewritten.

One frozen baseline stands in all verdicts that it is used for, and a variant that is judged again with more seeds is
looked at more than once; the gate needs to know both. A line counts for the baseline whose digest it names, so that a
baseline which is frozen again begins anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from analysis.records.errors import AnalysisError, AnalysisWarning
from harness.store.files import MOST_JSON, Damaged, append, parse_json, read_bytes, to_json
from harness.store.record import digest_of, is_sealed

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
    """The uses of this very baseline, oldest first. Lines that were cut short or changed count for nothing, and are
    warned of: there may have been more looks. Raises AnalysisError where the file cannot be read.
    """
    found, lost = [], 0
    try:
        lines = (read_bytes(_place(path), MOST_JSON) or b"").splitlines()
    except Damaged as error:
        raise AnalysisError(f"nobody knows how often the baseline was used: {error}") from error
    for line in filter(None, lines):
        try:
            use = parse_json(line, Use, "a use")
        except Damaged:
            use = {}
        if not is_sealed(use):
            lost += 1
        elif use["baseline"] == digest_of(baseline):
            found.append(use)
    if lost:
        text = f"{_place(path)} has {lost} damaged lines: the baseline was used more often than is known"
        warnings.warn(text, AnalysisWarning, stacklevel=2)
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
        # What stands there may have been cut short within its line: lines of our own begin.
        append(_place(path), "\n" + "\n".join(lines) + "\n")
    except OSError:
        return False
    return True


def digest_of_runs(runs: Iterable[str]) -> str:
    """A digest of runs by their names, in any order."""
    return digest_of({"runs": sorted(map(str, runs))})


def _place(path: str | Path) -> Path:
    path = Path(path).resolve()
    return path.with_name(path.name + ".uses.jsonl")
