"""The learning curve of a run, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from msgspec import Meta

from analysis.records.errors import AnalysisError
from harness.store import history
from harness.store.files import Damaged, check_shape

if TYPE_CHECKING:
    import pandas as pd


class Epoch(TypedDict, total=False):
    """What is drawn of an epoch."""

    epoch: Annotated[int, Meta(ge=0, lt=2**53)]
    loss: float
    validation: dict[str, float | None] | float | None


def read_history(directory: str | Path) -> pd.DataFrame:
    """The epochs of a run, validation metrics as columns `validation_*`; empty where there is no history.

    Raises AnalysisError where the file is damaged.
    """
    import pandas as pd

    try:
        rows = history.read_history(Path(directory))
        for row in rows:
            check_shape(row, Epoch, str(Path(directory) / history.HISTORY))
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    for row in rows:
        validation = row.pop("validation", None)
        if isinstance(validation, dict):
            row |= {f"validation_{name}": value for name, value in validation.items()}
        elif validation is not None:
            row["validation_acc"] = validation
    return pd.DataFrame(rows)
