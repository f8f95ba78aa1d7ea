"""What the processes of packs and pools are given: a GPU each, of those that the job has."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.jobs import death, job
from harness.jobs.local import Local
from harness.jobs.pack import run_pack
from harness.jobs.slots import gpus_for, spread
from harness.runtime.interruption import StopRequest
from harness.store.identity import run_directory
from harness.store.submission import write_config
from tests.nvidia_smi import Card, install, uuid
from tests.running import configure

# A run that only says which GPUs it sees, once it was beside the others.
CHILD = """
import os, pathlib, sys, time
file = pathlib.Path(sys.argv[1])
file.with_name("seen").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
time.sleep(0.3)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the code in which a run is that child."""
    file = tmp_path / "code" / "harness" / "jobs" / "job.py"
    file.parent.mkdir(parents=True)
    file.write_text(CHILD)
    for folder in (file.parent, file.parent.parent):
        (folder / "__init__.py").touch()
    return tmp_path / "code"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two GPUs; nothing chosen. Python is told not to look into the working directory."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_MEM_PER_NODE", "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", install(tmp_path / "bin", Card(), Card()))


def write_runs(tmp_path: Path, device: str, count: int = 4) -> dict[Path, dict[str, Any]]:
    """Their config.json and configurations."""
    configs = [configure(tmp_path / "runs", "supervised", seed=seed, device=device) for seed in range(count)]
    for config in configs:
        run_directory(config).mkdir(parents=True)
    return {write_config(run_directory(config), config): config for config in configs}


def seen(files: Any) -> list[str]:
    return [(Path(file).with_name("seen")).read_text() for file in files]


@pytest.mark.parametrize(
    "given, device, wanted",
    [
        (None, "auto", [uuid(0), uuid(1)] * 2),
        ("5,7", "auto", ["5", "7"] * 2),
        ("5,7", "cuda:1", ["7"] * 4),
        (f"{uuid(1)},{uuid(0)}", "cuda:1", [uuid(0)] * 4),
        (None, "cuda:1", ["1"] * 4),
        ("-1", "auto", ["-1"] * 4),
        ("NoDevFiles", "auto", ["NoDevFiles"] * 4),
        ("5,7", "cpu", ["5,7"] * 4),
    ],
)
def test_runs_of_a_pack_take_turns_on_the_gpus_of_the_job(
    tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, device: str, wanted: list[str]
) -> None:
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.chdir(code)
    files = list(write_runs(tmp_path, device))
    with StopRequest() as stop:
        assert run_pack(files, stop) == []
    assert seen(files) == wanted


def test_runs_of_the_pool_have_a_gpu_each(tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = write_runs(tmp_path, "cuda:1", 2)
    pool = Local(tmp_path / "runs", spread(2, gpus_for("cuda:1")))
    monkeypatch.setattr(pool, "code", code)
    pool.submit({file.parent: config for file, config in runs.items()})
    deadline = time.monotonic() + 60
    while pool.alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert seen(runs) == ["1", "1"]


@pytest.mark.parametrize("device, used", [("cuda:3", "cuda"), ("cuda:0", "cuda"), ("auto", "auto"), ("cpu", "cpu")])
def test_a_child_calls_the_gpu_that_it_sees_its_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, used: str
) -> None:
    (file,) = write_runs(tmp_path, device, 1)
    took: list[str] = []

    def execute(config: dict[str, Any], *others: Any, **more: Any) -> dict[str, Any]:
        took.append(config["device"])
        return {"status": "done"}

    monkeypatch.setattr("harness.run.run.execute", execute)
    monkeypatch.setattr(sys, "argv", ["job", str(file)])
    assert job.main() == 0
    assert took == [used]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") is None


def test_a_child_that_was_killed_is_told_of_with_the_usual_reason() -> None:
    assert "died by signal 9, as where the host's memory runs out (sweep.pack " in death.of_process(-9, None).message
    assert death.of_process(-15, None).message == "its process died by signal 15"


def test_a_child_that_cuda_ended_under_mps_may_not_be_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    log = tmp_path / "job.log"
    log.write_text("terminate called after throwing an instance of 'c10::AcceleratorError'\n  what():  CUDA error: x\n")
    alone = death.of_process(-6, str(log)).message
    assert alone == "its process died by signal 6; its log ends: what():  CUDA error: x"
    (tmp_path / "control").touch()
    assert death.of_process(-6, str(log)).message.startswith(f"{alone}; under MPS a fault of any process ends all")
    log.write_text("no such file\n")
    assert "MPS" not in death.of_process(1, str(log)).message
