"""Processes that train beside each other, through a daemon of MPS or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from harness.bench import packing
from tests.heads import PATIENCE_S, ROOT, wait_for

TINY = ["model=preresnet8", "size=8", "classes=3", "teachers=2", "batch=4", "methods=kd", "device=cpu"]
DAEMON = f"""#!{sys.executable}
import os, sys, time
said = "" if "-d" in sys.argv else sys.stdin.read().strip()
with open(os.environ["DAEMON_LOG"], "a") as log:
    print(sys.argv[1:], said, os.environ["CUDA_MPS_PIPE_DIRECTORY"], file=log)
if "-d" in sys.argv:
    time.sleep(0.3)  # born, and its start not yet over
if said == "get_server_list":
    print(4711)
"""


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """What stands for the daemon's command, first on the path; returns its log."""
    control = tmp_path / "bin" / packing.CONTROL
    control.parent.mkdir()
    control.write_text(DAEMON)
    control.chmod(0o755)
    monkeypatch.setenv("PATH", str(control.parent), prepend=os.pathsep)
    monkeypatch.setenv("DAEMON_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.mark.slow
def test_processes_are_compared_and_the_daemon_ends(tmp_path, daemon, monkeypatch):
    monkeypatch.setattr(packing, "COUNTS", (1, 2))
    monkeypatch.setattr(packing, "WINDOW_S", 0.1)
    assert packing.main([str(tmp_path / "found.json"), "--mps", *TINY]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["served_by_mps"] and [cell["processes"] for cell in found["cells"]] == [1, 2]
    for cell in found["cells"]:
        assert (
            cell["runs_per_hour"] == pytest.approx(3600 * cell["images_per_s"] / packing.RUN)
            and cell["images_per_s"] > 0
        )
    began, asked, ended = daemon.read_text().splitlines()
    assert began.startswith("['-d']") and asked.startswith("[] get_server_list") and ended.startswith("[] quit")
    assert len({line.split()[-1] for line in (began, asked, ended)}) == 1, "one daemon, in a place of its own"


def test_the_daemon_ends_where_a_process_dies(tmp_path, daemon, monkeypatch):
    monkeypatch.setattr(packing, "COUNTS", (1,))
    with pytest.raises(RuntimeError, match="died with exit code 1"):
        packing.main([str(tmp_path / "found.json"), "--mps", "model=alchemy"])
    began, ended = daemon.read_text().splitlines()
    assert began.startswith("['-d']") and ended.startswith("[] quit")


def test_the_daemon_ends_where_the_comparison_is_ended(tmp_path, daemon):
    command = [sys.executable, "-m", "harness.bench.packing", str(tmp_path / "found.json"), "--mps", *TINY]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_for(daemon.exists, "begin of the daemon")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 130
        finally:
            process.kill()
    assert daemon.read_text().splitlines()[-1].startswith("[] quit")


def test_without_a_daemon_nothing_is_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packing.shutil, "which", lambda name: None)
    assert packing.main([str(tmp_path / "found.json"), "--mps", *TINY]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["cells"] == []
    assert packing.CONTROL in capsys.readouterr().out
