"""Teacher sets that were trained elsewhere: BANK/imported/DATA-setN.json says which networks a set consists of.

Its teachers are runs of the bank like any others, with weights, predictions and record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from harness.store.files import read_json, write_json
from harness.store.identity import in_path

FOLDER = "imported"


class Member(TypedDict):
    """A teacher's network: `model=` and its options."""

    model: str
    network: dict[str, Any]


class Import(TypedDict):
    """A set's teachers, in member order."""

    members: list[Member]


def import_file(bank: Path, data: str, number: int) -> Path:
    """Where it is said that set `number` for a data set was imported."""
    return bank / FOLDER / f"{in_path(data)}-set{number}.json"


def read_import(bank: Path, data: str, number: int) -> list[Member] | None:
    """The networks of an imported set; None where it was not imported. Raises Damaged."""
    found = read_json(import_file(bank, data, number), Import)
    return None if found is None else found["members"]


def write_import(bank: Path, data: str, number: int, members: list[Member]) -> None:
    """Say that a set was imported; the last thing that an import does."""
    file = import_file(bank, data, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"members": members}, 1)
