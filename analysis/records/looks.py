"""The log of a sequential study: `looks.jsonl` in its folder, a line a look, appended and never rewritten.

Each line is sealed with its digest and names that of the line before, so that no look can be changed, taken out of the
middle or put between others. What a dying process cut short is no line; its look is taken again, from the same runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from analysis.records.errors import AnalysisError
from harness.store.files import MOST_JSON, Damaged, append, check_shape, parse_json, read_bytes, to_json
from harness.store.record import digest_of, is_sealed

LOOKS = "looks.jsonl"
FORMAT = 1
CUT = b'"cut short"'  # stands after a line that was, once another one follows it

Count = Annotated[int, Meta(ge=0, le=10**9)]
Far = Literal["inf", "-inf"]  # JSON has no infinities: a failed run's difference, an end that nothing bounds yet
Verdict = Literal["better", "worse", "equivalent", "open", "inconclusive"]


class Standing(TypedDict):
    """How a comparison stands at a look. `level` is what its family's Holm procedure holds it to at its end, `spent`
    the part of it that is spent by now; p is Holm-adjusted, the interval of this comparison alone.
    """

    family: str
    data: str
    model: str
    variant: str
    reference: str
    weights: dict[str, float]
    n: Count
    differences: list[float | Far]  # variant minus reference, by seed
    estimate: float | Far | None
    level: float
    spent: float
    boundary: float | Far | None  # what the statistic must exceed: a mean difference, a sum of signed ranks
    statistic: float | Far | None
    p: float
    p_equivalence: float | None  # Holm-adjusted; where a margin is declared
    low: float | Far
    high: float | Far
    verdict: Verdict
    decided: Count | None  # at which look


class Look(TypedDict):
    """One look. `declared` is the digest of the study as it was declared."""

    format: Count
    look: Count
    taken: str  # when, ISO 8601
    declared: str
    primary: str
    alpha: float
    looks: list[Count]
    spending: str
    statistic: str
    seeds: list[int]  # those that count
    sets: list[int]
    runs: Count  # that have ended by now
    failed: list[str]  # runs that count as the worst
    standings: list[Standing]
    previous: str | None
    digest: str


def read_looks(folder: str | Path) -> list[Look]:
    """The looks of a study's folder, oldest first; none where it has none.

    Raises AnalysisError where the log was changed after it was written.
    """
    path = Path(folder) / LOOKS
    found: list[Look] = []
    try:
        for line in read_lines(path):
            if not isinstance(line, dict) or (isinstance(line.get("format"), int) and line["format"] > FORMAT):
                raise Damaged(f"{path} is of a newer format than this code reads ({FORMAT}): upgrade it to read it")
            check_shape(line, Look, str(path))
            if not is_sealed(line):
                raise Damaged(f"{path}: look {line['look']} was changed after it was written: its digest does not fit")
            if line["look"] <= len(found):
                continue  # two processes took it, from the same runs; the first one counts
            if line["look"] != len(found) + 1 or line["previous"] != (found[-1]["digest"] if found else None):
                raise Damaged(f"{path}: look {line['look']} does not follow the one before it")
            found.append(line)
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    return found


def read_lines(path: Path) -> Iterator[Any]:
    """The values of the log, without what a dying process cut short: that is the end of the file, or has CUT after it.

    Raises Damaged for any other line that is no JSON: a look that vanished would be taken again.
    """
    *lines, tail = (read_bytes(path, MOST_JSON) or b"").split(b"\n")
    for line, following in pairwise([*lines, tail]):
        if line.strip() and line != CUT and following != CUT:
            yield parse_json(line, Any, str(path))
    if is_whole(tail):
        yield parse_json(tail, Any, str(path))
    elif tail and (not tail.startswith(b"{") or is_whole(tail[:-1])):  # that is: with another byte for the line's end
        raise Damaged(f"{path} is damaged: it ends in what is no look")


def is_whole(line: bytes) -> bool:
    """Whether a line is a value of JSON, which what was cut short is not."""
    try:
        parse_json(line, Any, LOOKS)
    except Damaged:
        return False
    return True


def append_look(folder: str | Path, look: dict[str, Any]) -> Look:
    """Seal a look and add it to the log, on disk when this returns."""
    path = Path(folder) / LOOKS
    sealed = look | {"digest": digest_of(look)}
    check_shape(sealed, Look, str(path))
    tail = (read_bytes(path, MOST_JSON) or b"").rpartition(b"\n")[2]
    before = "" if not tail else "\n" if is_whole(tail) else f"\n{CUT.decode()}\n"
    append(path, before + to_json(sealed) + "\n")
    return sealed


def number(value: float | str | None) -> float:
    """A number as the log has it; NaN where it has none."""
    return float("nan") if value is None else float(value)


def as_json(value: float) -> float | str | None:
    """A number as the log has it."""
    value = float(value)
    if value != value:
        return None
    return value if abs(value) != float("inf") else str(value)
