"""The learning curve of a run, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.records.errors import AnalysisError
from harness.store import history
from harness.store.files import Damaged

if TYPE_CHECKING:
    import pandas as pd


def read_history(directory: str | Path) -> pd.DataFrame:
    """The epochs of a run, validation metrics as columns `validation_*`; empty where there is no history.

    Raises AnalysisError where the file is damaged.
    """
    import pandas as pd

    try:
        rows = history.read_history(Path(directory))
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    for row in rows:
        validation = row.pop("validation", None)
        if isinstance(validation, dict):
            row |= {f"validation_{name}": value for name, value in validation.items()}
        elif validation is not None:
            row["validation_acc"] = validation
    return pd.DataFrame(rows)
