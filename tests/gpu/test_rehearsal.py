"""The checks' bodies in small, on the CPU and on a pretended GPU: that they run at all must not be found out on a real one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

import methods.kd
from methods import losses
from tests.gpu import steps
from tests.gpu.checks import CHECKS, Check
from tests.gpu.child import start_check
from tests.gpu.sheet import Sheet
from tests.pretended_gpu import pretending

pytestmark = pytest.mark.slow
PRETENDED = (2, 4, 5, 14)  # the others want processes, or memory and kernels, that nobody can pretend


def run_body(check: Check, device: str, folder: Path) -> Sheet:
    module, _, name = check.body.partition(":")
    sheet = Sheet(torch.device(device), folder, small=True)
    getattr(import_module(f"tests.gpu.{module}"), name)(sheet)
    return sheet


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_body_of_a_check_runs(check: Check, tmp_path: Path) -> None:
    if check.body.startswith("memory:"):  # what else this process holds is none of its business
        outcome = start_check(check, tmp_path / "check", "cpu", small=True)
        assert outcome.passed and outcome.measured, outcome
        return
    sheet = run_body(check, "cpu", tmp_path)
    assert sheet.measured and not sheet.wrong


@pytest.mark.parametrize("check", [check for check in CHECKS if check.number in PRETENDED], ids=str)
def test_it_runs_on_a_pretended_gpu(check: Check, tmp_path: Path) -> None:
    with pretending():
        sheet = run_body(check, "cuda:0", tmp_path)
    assert sheet.measured and not sheet.wrong


def test_a_step_that_waits_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CUDA's refusal is planted in what kd asks of its teacher."""
    refusing = []

    @contextlib.contextmanager
    def no_waits(device: torch.device) -> Iterator[None]:
        refusing.append(True)
        yield
        refusing.clear()

    def soften(*arguments: object) -> Tensor:
        if refusing:
            raise RuntimeError("called a synchronizing CUDA operation\nand more")
        return losses.soften(*arguments)

    for name in ("RECIPES", "CHANGES", "OPTIONS"):
        monkeypatch.setattr(steps, name, {})
    monkeypatch.setattr(steps, "ALL", ("supervised", "kd"))
    monkeypatch.setattr(steps, "BASELINES", [])
    monkeypatch.setattr(steps, "no_waits", no_waits)
    monkeypatch.setattr(methods.kd, "soften", soften)
    sheet = Sheet(torch.device("cpu"), tmp_path, small=True)
    steps.never_waits(sheet)
    (wrong,) = sheet.wrong
    assert wrong.startswith("kd captured: called a synchronizing CUDA operation at ") and "methods/kd.py:" in wrong
    assert sheet.measured == {"trials": 2, "waiting": 1}
