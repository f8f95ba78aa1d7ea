"""What a tracker shows of a run: the page that its folder amounts to at this moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from harness.store.aside import TRAINED
from harness.store.files import Count, Seconds, check_shape
from harness.store.history import HISTORY, read_history
from harness.store.identity import flatten
from harness.store.record import RECORD, RUN, read_record

MOST = 1e300  # what is more is no number
SAID_ELSEWHERE = ("method_defaults", "streams")  # of provenance: the configuration says it, or the seed


class Line(TypedDict):
    """What a page needs of an epoch's line."""

    epoch: Count
    elapsed_s: Seconds


@dataclass(frozen=True)
class Epoch:
    """An epoch's numbers, such as validation/acc, and the seconds of training until its end."""

    number: int
    elapsed_s: float
    values: dict[str, float]


@dataclass(frozen=True)
class Ending:
    """What a run's record says."""

    status: str  # done, failed or diverged
    final: dict[str, float]  # such as student/test/acc
    options: dict[str, bool | int | float | str]  # such as train.lr
    tags: dict[str, str]  # where it came from, such as code, versions.torch, device; of a failure, its error


@dataclass(frozen=True)
class Page:
    """A run by the name of its directory, which ends with its hash: the epochs so far, and how it ended, None while it has not."""

    name: str
    hash: str
    began: float  # seconds since 1970, about
    epochs: Sequence[Epoch]
    ending: Ending | None

    @property
    def seconds(self) -> float:
        """Of training, so far."""
        return self.epochs[-1].elapsed_s if self.epochs else 0.0

    def digest(self, epochs: int | None = None) -> str:
        """Of its first epochs, or of all that it tells: equal where that is equal, wherever the folder lies by now."""
        told = self.epochs[:epochs]
        content = [vars(epoch) for epoch in told], self.ending and vars(self.ending) if epochs is None else None
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_page(place: Path) -> Page | None:
    """The page of a run's directory, None where there is nothing to tell yet. Raises Damaged.

    A run that is evaluated again is told as what it was before; one that was interrupted, as one that goes on.
    """
    record = read_record(place) or read_record(place, TRAINED)
    lines = check_shape(read_history(place), list[Line], str(place / HISTORY))
    ending = read_ending(record) if record and record["status"] != "interrupted" else None
    name = place.absolute().name
    run = record["hash"] if record else (named := RUN.search(name)) and named[1]
    if run is None or not (lines or ending):
        return None
    # An epoch that was trained again, after a cut of the history that no disk took, counts as trained last.
    latest = {line["epoch"]: line for line in lines}
    epochs = [Epoch(number, line["elapsed_s"], numbers_of(line)) for number, line in sorted(latest.items())]
    written = (place / (HISTORY if lines else RECORD)).stat().st_mtime
    name = name if RUN.search(name) else f"{name}-{run}"  # two folders may have the same one
    return Page(printed(name), run, written - (epochs[-1].elapsed_s if epochs else 0.0), epochs, ending)


def read_ending(record: dict[str, Any]) -> Ending:
    """What a record says at the end of a page."""
    final = numbers_of(
        {**(record["metrics"] or {}), "cost": record["cost"], "selection": record.get("selection") or {}}
    )
    origin = {key: value for key, value in record["provenance"].items() if key not in SAID_ELSEWHERE}
    tags = {"status": record["status"], **{printed(key): as_text(value) for key, value in flatten(origin).items()}}
    if record["status"] != "done":
        error = record["error"]
        tags["error"] = as_text(": ".join(filter(None, (error.get("type"), error["message"]))))
    options = {printed(key): value for key, value in flatten(record["config"]).items()}
    plain = {key: value if isinstance(value, bool | int | float) else as_text(value) for key, value in options.items()}
    return Ending(record["status"], final, plain, tags)


def numbers_of(nested: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in nested values, by names such as validation/acc; epoch and step are places, not values."""
    flat = flatten({key: value for key, value in nested.items() if key not in ("epoch", "step")})
    numbers = {printed(name).replace(".", "/"): value for name, value in flat.items() if type(value) in (int, float)}
    return {name: float(value) for name, value in numbers.items() if abs(value) < MOST}


def as_text(value: Any) -> str:
    """A value as a text: itself where it is one."""
    return printed(value) if isinstance(value, str) else json.dumps(value)


def printed(text: str) -> str:
    """A text as files and servers take it: names of files, in a command line, say, need not be text."""
    return text.encode(errors="backslashreplace").decode()
