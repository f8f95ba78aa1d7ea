"""A disk that fails under the head of a sweep on SLURM: one line, nothing lost, and the same command goes on."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest

from harness.__main__ import main
from slurm.lab import Lab
from tests.faults import failing
from tests.heads import records
from tests.slurm.conftest import ON_SLURM

pytestmark = pytest.mark.slurm
# How many of the head's calls that change something are tried, from the last on: before these it copies the code.
POINTS = int(os.environ.get("HARNESS_FUZZ", 1))
SWEEP = ("method=kd", "seed=0", "train=smoke", "teachers.size=1", "threads=1")


def files_of(runs: Path) -> dict[str, dict[str, str]]:
    return {name: record["files"] for name, record in records(runs).items()}


def test_the_head_ends_in_a_line_and_goes_on(
    busy_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in busy_lab.environment.items():
        monkeypatch.setenv(name, value)
    with failing(tmp_path, at=10**9) as disk:
        assert main([*ON_SLURM, *SWEEP, f"runs={tmp_path / 'calm'}"]) == 0
    known, ended = files_of(tmp_path / "calm"), {}
    for at in sorted(range(disk.calls, 0, -max(1, 60 // POINTS))[:POINTS]):
        runs = tmp_path / str(at)
        said = io.StringIO()
        with failing(runs, at) as disk, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main([*ON_SLURM, *SWEEP, f"runs={runs}"])
        assert "Traceback" not in said.getvalue(), said.getvalue()
        assert status == 0 or "error: " in said.getvalue(), said.getvalue()
        assert main([*ON_SLURM, *SWEEP, f"runs={runs}"]) == 0, f"{disk.failed}: {capsys.readouterr().out}"
        assert files_of(runs) == known, disk.failed
        ended[at] = (disk.failed, status)
    with capsys.disabled():
        print(f"\nfull disk under a SLURM head: {len(ended)} points: {ended}")
    assert ended
