"""CUDA's rules for the names of GPUs, on machines of several kinds; nvidia-smi is a pretended one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.runtime import gpus
from tests.nvidia_smi import A30, Card, install, mig, uuid


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Make this machine one with these GPUs; without CUDA_VISIBLE_DEVICES, unless a test sets it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return lambda *cards: monkeypatch.setenv("PATH", install(tmp_path / "bin", *cards))


@pytest.mark.parametrize(
    "chosen, names",
    [
        ("3", ["3"]),
        ("2, 0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,1,-1,2", ["0", "1"]),
        ("1,1", []),
        (f"{uuid(1)},{uuid(0)}", [uuid(1), uuid(0)]),
        ("GPU-1f", ["GPU-1f"]),
        (mig(0, 1), [mig(0, 1)]),
    ],
)
def test_what_is_visible_is_what_cuda_would_see(monkeypatch: pytest.MonkeyPatch, chosen: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus.visible() == names


def test_where_nothing_is_chosen_every_gpu_is_visible_or_its_mig_devices(machine) -> None:
    machine(Card(), Card(parts=(9_000, 8_000)), Card())
    assert gpus.visible() == [uuid(0), mig(1, 0), mig(1, 1), uuid(2)]


def test_the_name_of_a_number_is_what_cuda_would_count(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(Card(), Card(model=A30))
    assert [gpus.numbered(k) for k in range(3)] == ["0", "1", None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"3,{uuid(1)},5")
    assert [gpus.numbered(k) for k in range(2)] == ["3", None], "numbers and UUIDs do not mix"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    machine(Card(parts=(1, 2)))
    assert gpus.numbered(1) == mig(0, 1)


def test_without_nvidia_smi_the_files_of_the_driver_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    assert gpus.visible() == []
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus.visible() == ["0", "1"]
    assert gpus.free_bytes(["0"]) == {}


def test_free_memory_is_that_of_the_gpu_that_the_name_means(machine) -> None:
    machine(Card(free=100), Card(parts=(200, 300)), Card(free=400))
    names = ["0", uuid(2), "GPU-2f0c", mig(1, 1), "1", "7", "GPU-9", "GPU-"]
    assert gpus.free_bytes(names) == {
        **{"0": 100 << 20, mig(1, 1): 300 << 20},
        **{uuid(2): 400 << 20, "GPU-2f0c": 400 << 20},
    }, "a GPU in parts has no memory of its own, GPU- could be any"


def test_numbers_mean_nothing_where_cuda_and_nvidia_smi_count_differently(machine, monkeypatch) -> None:
    machine(Card(free=100, model=A30), Card(free=200))
    assert gpus.free_bytes(["0", uuid(1)]) == {uuid(1): 200 << 20}
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpus.free_bytes(["0", "1"]) == {"0": 100 << 20, "1": 200 << 20}


def test_a_number_that_nvidia_smi_keeps_to_itself_is_no_number(machine) -> None:
    machine(Card(free="[Insufficient Permissions]"), Card(free="N/A"), Card(free=5))
    assert gpus.free_bytes(["0", "1", "2"]) == {"2": 5 << 20}


def test_mps_is_known_by_its_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert gpus.shared_fate() == ""
    (tmp_path / "control").touch()
    assert "under MPS a fault of any process ends all" in gpus.shared_fate()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nvidia_smi_and_cuda_agree_on_this_machine() -> None:
    names = gpus.visible()
    assert len(names) >= torch.cuda.device_count() >= 1
    real = [f"GPU-{torch.cuda.get_device_properties(k).uuid}" for k in range(torch.cuda.device_count())]
    said = gpus.free_bytes(real)
    assert set(said) == set(real)
    free, total = torch.cuda.mem_get_info(0)
    assert abs(said[real[0]] - free) < 0.05 * total
