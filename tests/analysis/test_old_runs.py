"""Records of older versions stay readable, and give the numbers that they gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.__main__ import main

DATA = Path(__file__).parents[1] / "data"


def test_runs_of_version_1_give_the_table_that_they_gave(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(DATA / "version_1")]) == 0
    assert capsys.readouterr().out == (DATA / "version_1" / "table.txt").read_text()
