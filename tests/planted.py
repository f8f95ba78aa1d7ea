"""Finished runs that nobody trained, whole as a run leaves them; for tests of those who only read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from harness.store.identity import run_hash
from harness.store.predictions import PREDICTIONS, write_predictions
from harness.store.record import failure, write_record
from harness.store.weights import WEIGHTS, write_weights

TEST = {"acc": 0.9, "nll": 0.3, "brier": 0.2, "ece": 0.05, "nll_ts": 0.3, "ece_ts": 0.04, "temperature": 1.1}


def plant(directory: Path, config: dict[str, Any], status: str = "done", **changes: Any) -> dict[str, Any]:
    """Write a run's record, with the files of a done one; returns it. changes: of the record's fields."""
    record = failure(config, run_hash(config), {"type": "E", "message": "why"}, None) | {"status": status}
    record["cost"] = {"wall_s": 1.0, "device_s": 1.0, "images_per_s": 9.0, "parameters": 3}
    directory.mkdir(parents=True, exist_ok=True)
    if status == "done":
        record["error"], record["selection"] = None, {"epoch": 1, "acc": 0.9}
        record["provenance"]["device"] = "cpu"
        record["metrics"] = {"student": {"validation": TEST, "test": TEST}}
        values = {"validation": np.zeros((4, 2)), "test": np.zeros((6, 2))}
        labels = {name: np.zeros(len(array), np.int64) for name, array in values.items()}
        record["files"] = {
            PREDICTIONS: write_predictions(directory, values, labels),
            WEIGHTS: write_weights(directory, {"weight": np.zeros(3, np.float32)}, {}),
        }
    return write_record(directory, record | changes)
