"""What the lab says on a machine without SLURM; needs none itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm.lab import main


def test_the_message_has_the_line_that_installs_slurm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("slurm.installation.shutil.which", lambda *_, **__: None)
    assert main(["start", str(tmp_path / "lab")]) == 2
    message = capsys.readouterr().err
    assert "apt-get install --yes --no-install-recommends munge slurmctld slurmd slurm-client" in message
    assert "slurmdbd mariadb-server" in message
    assert not (tmp_path / "lab").exists()
