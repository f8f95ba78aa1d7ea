"""The judgement of one file, whichever kind it is."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.reference.engine import check_engine
from tests.reference.evaluation import check_evaluation
from tests.reference.file import Quantity, open_file


def check(path: Path | str) -> tuple[list[str], list[Quantity]]:
    """Remarks, and every quantity of the file with its verdict; what could not be computed is out too."""
    torch.set_num_threads(1)  # networks this small only wait for further threads
    file = open_file(path)
    try:
        notes = check_engine(file) if "in/images_uint8" in file.arrays else check_evaluation(file)
    except (KeyError, ValueError) as error:
        notes = []
        file.judge(file.path.name, float("inf"), note=f"{type(error).__name__}: {error}")
    if needless := file.report_unused():
        notes.append(f"given but not needed: {', '.join(needless)}")
    return notes, file.results
