"""The judgement of one file, whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from tests.reference.engine import check_engine
from tests.reference.evaluation import check_evaluation
from tests.reference.file import Quantity, open_file


def check(path: Path | str) -> tuple[list[str], list[Quantity]]:
    """Remarks, and every quantity of the file with its verdict; what could not be computed is out too."""
    file = open_file(path)
    notes = check_engine(file) if "in/images_uint8" in file.arrays else check_evaluation(file)
    file.report_unused()
    return notes, file.results
