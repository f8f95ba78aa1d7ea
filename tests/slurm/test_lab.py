"""The one-machine cluster: it is a real SLURM, it comes up quickly, and it leaves nothing behind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.lab import Lab, LabError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slurm


def processes_of(lab: Lab) -> list[str]:
    """Command lines of all living processes that were started with the lab's configuration."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_CONF={lab.conf}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended while we looked
            continue
    return found


def batch(lab: Lab, script: str, *options: str) -> str:
    """Submit a shell script; returns the job id."""
    output = f"--output={lab.folder}/%j.out"
    return lab.run("sbatch", "--parsable", output, *options, f"--wrap={script}").strip()


def account(lab: Lab, job: str, fields: str) -> list[str]:
    """What sacct knows about a job as a whole, once the job has ended."""
    row: list[str] = []

    def ended() -> bool:
        told = lab.run("sacct", "-X", "-n", "-P", "-j", job, f"--format=End,{fields}").strip()
        row[:] = told.split("|")
        return bool(told) and row[0] != "Unknown"

    lab.wait_until(ended, f"end of job {job}", timeout=40)
    return row[1:]


def test_it_starts_with_all_nodes_idle(lab: Lab) -> None:
    assert lab.node_states() == dict.fromkeys(["n1", "n2", "n3", "n4"], "idle")
    assert not lab.start(), "starting a running lab does nothing"


def test_srun_uses_every_node(lab: Lab) -> None:
    told = lab.run("srun", "--nodes=4", "--ntasks-per-node=1", "printenv", "SLURMD_NODENAME")
    assert sorted(told.split()) == ["n1", "n2", "n3", "n4"]


def test_sacct_tells_how_a_job_ended(lab: Lab) -> None:
    hog = f"exec {sys.executable} -c 'import time; x = bytearray(400 << 20); time.sleep(30)'"
    jobs = [batch(lab, "exit 0"), batch(lab, "exit 3"), batch(lab, hog, "--mem=100M")]
    accounts = [account(lab, job, "State,ExitCode") for job in jobs]
    assert accounts == [["COMPLETED", "0:0"], ["FAILED", "3:0"], ["FAILED", "0:9"]]
    # The state OUT_OF_MEMORY takes cgroups; without them only the job's log tells.
    assert "exceeded memory limit" in (lab.folder / f"{jobs[2]}.out").read_text()


def test_jobs_on_one_node_see_different_gpus(lab: Lab) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 2"
    jobs = [batch(lab, script, "--gpus-per-node=1", f"--nodelist={node}") for node in ("n2", "n2", "n3")]
    for job in jobs:
        assert account(lab, job, "State") == ["COMPLETED"]
    first, second, other_node = ((lab.folder / f"{job}.out").read_text().strip() for job in jobs)
    assert {first, second} == {"0", "1"}
    assert other_node in {"0", "1"}


def test_an_urgent_job_warns_its_victim_which_is_requeued(slurm_installed: None) -> None:
    # The victim gives way as submitit's jobs do; SLURM itself ends it up to 30 s after the grace time.
    script = "trap 'scontrol requeue $SLURM_JOB_ID' USR2; echo ready; while :; do sleep 0.1; done"
    with Lab(nodes=1, cpus=1, gpus=0, accounting=False) as lab:
        job = batch(lab, script, "--signal=B:USR2@60", "--time=5")
        output = lab.folder / f"{job}.out"
        lab.wait_until(lambda: output.exists() and "ready" in output.read_text(), "the victim runs")
        assert lab.run("srun", "--partition=urgent", "printenv", "SLURMD_NODENAME") == "n1\n"
        shown = lab.run("scontrol", "show", "job", job)
        assert "JobState=PENDING" in shown
        assert "Restarts=1" in shown


def test_a_dead_node_is_noticed_and_comes_back(slurm_installed: None) -> None:
    with Lab(nodes=2, node_timeout=3, settings={"MessageTimeout": "2"}) as lab:
        job = batch(lab, "exec sleep 123", "--nodelist=n2", "--no-requeue")
        lab.wait_until(lambda: lab.node_states()["n2"] == "mixed", "job on n2")
        lab.kill_node("n2")
        assert "slurmd-n2" not in lab.daemons()
        assert not any("sleep 123" in line for line in processes_of(lab)), "its jobs die with it"
        lab.wait_until(lambda: lab.node_states()["n2"].startswith("down"), "n2 down", timeout=20)
        assert account(lab, job, "State") == ["NODE_FAIL"]
        assert lab.node_states()["n1"] == "idle"
        lab.start_node("n2")
        lab.wait_until(lambda: lab.node_states()["n2"] == "idle", "n2 back")
        with pytest.raises(LabError, match="no node n7"):
            lab.kill_node("n7")


def test_the_command_line_from_start_to_stop(lab: Lab) -> None:
    folder = lab.folder.with_name(lab.folder.name + "-cli")
    command = [sys.executable, "-m", "slurm.lab"]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=ROOT, text=True, capture_output=True, timeout=60)

    other = Lab(folder)
    try:
        shape = ("--nodes=1", "--gpus=0", "--no-accounting", "--max-array-size=7", "--set=OverTimeLimit=1")
        started = call("start", str(folder), *shape)
        assert started.returncode == 0, started.stderr
        assert call("env", str(folder)).stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
        assert re.search(r"n1 +main\* +idle", call("status", str(folder)).stdout)
        configuration = other.run("scontrol", "show", "config")
        assert re.search(r"MaxArraySize += 7\n", configuration)
        assert re.search(r"OverTimeLimit += 1 min\n", configuration)
        assert lab.node_states().keys() == {"n1", "n2", "n3", "n4"}, "side by side, each answers for itself"
        batch(other, "trap '' TERM; sleep 321")
        other.wait_until(lambda: any("sleep 321" in line for line in processes_of(other)), "job runs")
        assert call("stop", str(folder)).returncode == 0
        assert processes_of(other) == []
        assert "slurmctld" in lab.daemons()
        assert call("stop", str(folder)).stdout.endswith("was not running\n")
        assert call("status", str(folder)).returncode == 1
    finally:
        other.stop()
        shutil.rmtree(folder, ignore_errors=True)
