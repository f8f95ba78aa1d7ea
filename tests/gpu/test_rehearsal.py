"""The checks' bodies on the CPU, in small: that they run at all must not be found out on a GPU."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from tests.gpu.checks import CHECKS, Check
from tests.gpu.child import start_check
from tests.gpu.sheet import Sheet


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_body_of_a_check_runs(check: Check, tmp_path) -> None:
    module, _, name = check.body.partition(":")
    if module == "memory":  # what else this process holds is none of its business
        outcome = start_check(check, tmp_path / "check", "cpu", small=True)
        assert outcome.passed and outcome.measured, outcome
        return
    sheet = Sheet(torch.device("cpu"), tmp_path, small=True)
    getattr(import_module(f"tests.gpu.{module}"), name)(sheet)
    print(sheet.measured)
    assert sheet.measured and not sheet.wrong
