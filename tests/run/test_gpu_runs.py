"""Whole runs on a pretended GPU: teachers, student, evaluation, checkpoint, resumption, with the CPU's numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from harness.run.run import execute
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted
from harness.store.identity import run_directory
from harness.store.record import read_record
from tests.pretended_gpu import pretending
from tests.running import configure, run

# As GPUs choose, so that the order of sums is the same.
RECIPE = {"train__channels_last": True}
RUNS = {
    "kd": {"train__average": "swa", "teachers__cache": "views"},
    "perturbation": {"train__average": "ema", "train__precision": "bfloat16"},
    "combined": {"evaluate__shift": True},
}


def numbers(found: Any) -> list[float]:
    """Every number of a record's part, in order."""
    if isinstance(found, dict | list):
        return [number for part in (found.values() if isinstance(found, dict) else found) for number in numbers(part)]
    return [found] if isinstance(found, int | float) else []


def losses(config: dict[str, Any]) -> list[float]:
    rows = (run_directory(config) / "history.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS)
def test_a_run_has_the_cpus_numbers(tmp_path, method):
    expected = run(tmp_path / "cpu", method, device="cpu", **RECIPE, **RUNS[method])
    with pretending():
        found = run(tmp_path / "gpu", method, device="auto", **RECIPE, **RUNS[method])
    assert found["status"] == "done"
    assert found["provenance"]["device"] == "Pretended GPU"
    assert found["provenance"]["gpu"]["deterministic"] is False
    assert found["provenance"]["teacher_views"] == expected["provenance"]["teacher_views"] == (method == "kd")
    assert losses(found["config"]) == pytest.approx(losses(expected["config"]), rel=1e-4)
    for part in ("metrics", "diagnostics", "shift"):
        ours, theirs = numbers(found[part]), numbers(expected[part])
        assert ours or (part == "shift" and method != "combined")
        assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-2) and all(map(math.isfinite, ours))


class Steps:
    """Asks to stop before the step after so many."""

    def __init__(self, count: int):
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.slow
@pytest.mark.parametrize("then", ["cuda", "cpu"])
def test_an_interrupted_run_goes_on(tmp_path, then):
    """On the GPU to the same numbers; on a CPU, whose sums have another order, to about the same."""
    options = {"bank": str(tmp_path / "bank"), "train__average": "ema", "evaluate__diagnostics": False}
    options |= {"train__epochs": 4, "train__schedule": "constant", "train__lr": 0.2}  # what momentum was is seen
    with pretending():
        whole = run(tmp_path / "whole", "combined", device="cuda", **options)
        config = configure(tmp_path / "parts", "combined", device="cuda", **options)
        with pytest.raises(Interrupted, match="stopped at step 4 of 12"):
            execute(config, Console(), Steps(4))
        if then == "cuda":
            execute(config, Console())
    if then == "cpu":
        execute({**config, "device": "cpu"}, Console())
    record = read_record(run_directory(config))
    assert record["status"] == "done" and record["provenance"]["attempts"] == 2
    assert losses(config) == pytest.approx(losses(whole["config"]), rel=1e-6 if then == "cuda" else 1e-5)
