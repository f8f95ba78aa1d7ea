"""Names, numbers and settings that somebody chose to be more than that: none reaches a shell or slurm.conf as more."""

# ruff: noqa: F401, F811  (the fixtures are imported)

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.configuration import write_configuration
from slurm.folder import CONTENT, LONGEST, MARKER, claim
from slurm.lab import Lab, LabError, Shape, export
from tests.slurm.test_lab_safety import ROOT, Ask, Processes, ask, home, place, process, started

HOSTILE = (
    "a b",
    "a'b",
    'a"b',
    "$(touch hit)",
    "`touch hit`",
    "a;touch hit",
    "a\ntouch hit",
    "-n",
    "a\\",
    "*",
    "~",
    "#a",
)


# Folders


@pytest.mark.parametrize("name", [*HOSTILE, "x" * LONGEST, "a%n", "a,b", "a=b", "a[1]"])
def test_a_name_that_slurm_would_misread_is_refused(name: str, place: Path, ask: Ask) -> None:
    if name == "-n":
        return
    with pytest.raises(LabError, match="letters, digits") as refused, claim(place / name):
        pass
    assert "\n" not in str(refused.value)
    assert list(place.iterdir()) == []
    code, said, complaint = ask("env", place / name)
    assert (code, said, complaint.count("\n")) == (1, "false\n", 1)


# Names that a shell evaluates


@pytest.mark.parametrize("name", HOSTILE)
def test_a_shell_gets_the_name_and_nothing_but_the_name(name: str, place: Path, started: Processes) -> None:
    folder = place / name
    assert evaluated(export(folder), place) == str(folder)
    # The same from a folder that says it is a lab's, with a process that says it is the controller.
    (folder / "run").mkdir(parents=True)
    (folder / MARKER).write_text(CONTENT.format(user=os.getuid(), folder=folder))
    started.append(process(SLURM_CONF=f"{folder}/slurm.conf", LAB_DAEMON="slurmctld"))
    (folder / "run" / "slurmctld.pid").write_text(str(started[0].pid))
    command = [sys.executable, "-m", "slurm.lab", "env", str(folder)]
    told = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert evaluated(told, place) == f"{folder}/slurm.conf"


def evaluated(line: str, place: Path) -> str:
    """What a shell has in SLURM_CONF after it evaluated the line, which made no file."""
    before = set(place.iterdir())
    script = 'eval "$1" && printf %s "$SLURM_CONF"'
    told = subprocess.run(["sh", "-c", script, "sh", line], cwd=place, text=True, capture_output=True, check=True)
    assert set(place.iterdir()) == before
    return told.stdout


def test_a_shell_that_evaluates_a_refusal_goes_no_further(place: Path) -> None:
    script = f'eval "$({sys.executable} -m slurm.lab env {place})" && echo "on some other cluster"'
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (1, "")


# Numbers and settings


@pytest.mark.parametrize(
    "field",
    [{"nodes": 0}, {"nodes": 10**9}, {"nodes": "4\nPrologFlags=x"}, {"cpus": -1}, {"gpus": True}, {"memory": 0}],
)
def test_a_number_out_of_bounds_is_refused(field: dict[str, int], place: Path) -> None:
    with pytest.raises(LabError, match="give a number from") as refused:
        Lab(place / "lab", **field)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        *("A=1\nStateSaveLocation=/", "A=1\rB=2", "A\nB=1", "=1", " A=1", "A", "A=1#", "A=1\\", "Include x=1"),
        *("SlurmctldPidFile=/x", "statesavelocation=/", "MessageTimeout=2 SlurmdSpoolDir = /", "ClusterName=x"),
        *("SlurmUser=nobody", "AuthInfo=socket=/x", "SlurmctldPort=1", "NodeName=n9"),
    ],
)
def test_a_setting_is_one_line_and_none_of_the_lab_s_own(
    setting: str, place: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A setting that slips through must not start a cluster, which might write where it says.
    monkeypatch.setattr("slurm.lab.check_installed", lambda accounting: pytest.fail("not refused"))
    code, _, complaint = ask("start", place / "lab", "--set", setting)
    assert (code, complaint.count("\n")) == (1, 1)
    assert complaint.startswith("slurm.lab: --set ")
    assert list(place.iterdir()) == []


def test_settings_are_lines_of_slurm_conf(place: Path, ask: Ask) -> None:
    settings = {"PartitionName": "b Nodes=ALL MaxTime=5", "MessageTimeout": "2"}
    with claim(place / "lab"):
        write_configuration(place / "lab", Shape(nodes=1, settings=settings))
    lines = (place / "lab" / "slurm.conf").read_text().splitlines()
    assert lines[-2:] == ["PartitionName=b Nodes=ALL MaxTime=5", "MessageTimeout=2"]
    assert "given twice" in ask("start", "--set", "A=1", "--set", "A=2")[2]


@pytest.mark.slurm
def test_a_job_runs_below_the_longest_path(slurm_installed: None, place: Path) -> None:
    folder = place / ("x" * (LONGEST - len(f"{place}/")))
    before = os.umask(0)  # munged refuses what others may write
    try:
        with Lab(folder, nodes=1, gpus=0, accounting=False) as lab:
            lab.run("sbatch", f"--output={place}/out", "--wrap=sleep 1; echo ran")
            loose = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & stat.S_IWOTH]
            assert loose == []
            lab.wait_until(lambda: (place / "out").exists() and (place / "out").read_text() == "ran\n", "a job's words")
    finally:
        os.umask(before)
