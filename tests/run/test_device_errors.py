"""Errors of devices: the line that they become, and that their memory is given back."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.run import device_errors
from harness.run.device_errors import GpuFault, OutOfMemory, explained, giving_back
from harness.run.run import execute
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.store.record import read_record
from methods.baselines.supervised import Supervised
from tests.running import configure

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.50 GiB is free. "
    "Process 12 has 77.60 GiB memory in use. Of the allocated memory 76.00 GiB is allocated by PyTorch"
)


@dataclass
class Hungry(Supervised):
    """Asks for more than there is, once it has much."""

    def loss(self, images, labels, teachers, student):
        hoard = torch.zeros(1 << 20)
        held.append(weakref.ref(hoard))
        raise torch.OutOfMemoryError(SAID)


held: list[weakref.ref] = []


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return configure(tmp_path, "supervised")


def test_out_of_memory_is_recorded_with_what_to_change_and_given_back(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    held.clear()
    monkeypatch.setattr("harness.run.learner.build_method", lambda config: Hungry())
    with pytest.raises(OutOfMemory) as caught:
        execute(config, Console())
    line = (
        "out of GPU memory (2.00 GiB more were asked for, 1.50 GiB are free); try train.accumulate=2 or a smaller "
        "train.batch_size or train.precision=bfloat16 or train.capture=false or teachers.cache=none"
    )
    assert str(caught.value) == line
    record = read_record(run_directory(config))
    assert (record["status"], record["error"]["type"], record["error"]["message"]) == ("failed", "OutOfMemory", line)
    assert "torch.OutOfMemoryError: CUDA out of memory" in record["error"]["traceback"]
    assert held[0]() is None, "while the error is still at hand"
    monkeypatch.undo()
    assert execute(config, Console())["status"] == "done", "the next run of the process is not hurt"


@pytest.mark.parametrize(
    "error, line",
    [
        (torch.OutOfMemoryError(SAID), "out of GPU memory (2.00 GiB more"),
        (torch.AcceleratorError("CUDA error: out of memory"), "out of GPU memory; try"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out of GPU memory;",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of GPU memory; try"),
        (MemoryError("Unable to allocate 9.31 GiB for an array"), "out of host memory; try"),
    ],
)
def test_whatever_says_that_memory_is_out(config: dict[str, Any], error: Exception, line: str) -> None:
    found = explained(error, config)
    assert isinstance(found, OutOfMemory)
    assert str(found).startswith(line)
    assert explained(found, config) is found, "a teacher's is its student's"


def test_what_the_cpu_says(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert str(explained(caught.value, config)) == (
        "out of host memory (1125899906842624 bytes more were asked for); try train.accumulate=2 or a smaller "
        "train.batch_size or teachers.cache=none or more hydra.launcher.mem_gb"
    )


def test_advice_is_what_this_run_can_follow(config: dict[str, Any]) -> None:
    config["train"] |= {"batch_size": 9, "accumulate": 1, "precision": "bfloat16", "capture": False}
    config["teachers"]["cache"], config["sweep"]["pack"] = "none", 4
    assert (
        device_errors.advice(config, on_gpu=True)
        == "try train.accumulate=3 or a smaller train.batch_size or sweep.pack=2"
    )
    config["train"] |= {"batch_size": 8, "accumulate": 4}
    assert "accumulate" not in device_errors.advice(config, on_gpu=True), "batch norm needs two images"


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("shapes do not match")])
def test_other_errors_are_left_alone(config: dict[str, Any], error: Exception) -> None:
    assert explained(error, config) is error


def test_a_fault_is_one_line_and_under_mps_nobody_knows_whose(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    error = torch.AcceleratorError(
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some"
    )
    old = torch.AcceleratorError("CUDA error: CUDA driver version is insufficient for CUDA runtime version\nSearch for")
    assert str(explained(old, config)) == "CUDA error: CUDA driver version is insufficient for CUDA runtime version"
    alone = explained(error, config)
    assert isinstance(alone, GpuFault)
    assert str(alone) == "CUDA error: an illegal memory access was encountered; CUDA_LAUNCH_BLOCKING=1 shows where"
    (tmp_path / "control").touch()
    assert str(explained(error, config)) == (
        f"{alone}; under MPS a fault of any process ends all that share the GPU: the same command runs them again"
    )


def test_a_gpu_is_given_its_memory_back_however_a_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def empty() -> None:
        given.append("back")
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    with giving_back(torch.device("cuda", 0)):
        knot: list[Any] = [torch.zeros(1)]
        knot.append(knot)
        there = weakref.ref(knot[0])
        del knot
    assert there() is None
    with pytest.raises(ArithmeticError), giving_back(torch.device("cuda", 0)):
        raise ArithmeticError
    assert given == ["back"] * 2
