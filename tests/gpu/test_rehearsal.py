"""The checks' bodies in small, on the CPU and on a pretended GPU: that they run at all must not be found out on a real one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch

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
