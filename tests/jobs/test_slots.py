"""Where runs beside each other go: which GPUs, and how many of them fit there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config import ConfigError
from harness.jobs import memory
from harness.jobs.memory import CONTEXT, PROCESS_WITH_CUDA, SLACK, find_slots
from harness.jobs.slots import gpus_for
from harness.runtime import host
from harness.store.identity import run_directory
from harness.store.record import read_record, write_record
from tests.heads import ROOT
from tests.nvidia_smi import Card, install, uuid
from tests.planted import plant
from tests.running import configure

GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Make this machine one with these GPUs and a terabyte of memory."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_MEM_PER_NODE", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host, "free_memory", lambda: 1 << 40)
    return lambda *cards: monkeypatch.setenv("PATH", install(tmp_path / "bin", *cards))


@pytest.fixture
def runs(tmp_path: Path) -> list[dict[str, Any]]:
    return [configure(tmp_path, "supervised", seed=seed) for seed in range(4)]


def remember(config: dict[str, Any], peak: int, device: str = "NVIDIA H100 80GB HBM3") -> None:
    """Leave a record of a run of the same kind that took so many bytes."""
    earlier = {**config, "seed": 100}
    directory = run_directory(earlier)
    directory.mkdir(exist_ok=True)
    plant(directory, earlier)
    record = read_record(directory)
    record["cost"]["peak_memory_bytes"] = peak
    record["provenance"]["device"] = device
    write_record(directory, record)


def filling(fraction: float, free_mib: int) -> int:
    """The peak of a run that takes this fraction of what is free, with what it takes beside its tensors."""
    return int(((free_mib << 20) * fraction - CONTEXT) / SLACK)


def test_each_child_is_given_a_gpu_by_name_whatever_the_user_called_it(machine, monkeypatch) -> None:
    machine(Card(), Card())
    assert gpus_for("auto") == gpus_for("cuda") == [uuid(0), uuid(1)]
    assert gpus_for("cuda:1") == ["1"]
    assert gpus_for("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{uuid(1)},{uuid(0)}")
    assert gpus_for("cuda:1") == [uuid(0)]


@pytest.mark.parametrize("chosen", ["-1", "", "NoDevFiles"])
def test_hidden_gpus_mean_the_cpu_and_are_refused_by_name(machine, monkeypatch, chosen: str) -> None:
    machine(Card(), Card())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpus_for("auto") == []
    for device in ("cuda", "cuda:0"):
        with pytest.raises(
            ConfigError, match=rf"device={device}: 0 GPUs are visible here \(CUDA_VISIBLE_DEVICES={chosen}\)"
        ):
            gpus_for(device)


@pytest.mark.parametrize("device", ["cuda:2", "cuda:x", "gpu", "cuda:"])
def test_what_is_no_gpu_of_this_machine_is_refused(machine, device: str) -> None:
    machine(Card(), Card())
    with pytest.raises(ConfigError, match=f"device={device}: 2 GPUs are visible here; use auto, cpu, cuda or cuda:N"):
        gpus_for(device)


def test_runs_of_one_job_are_spread_over_its_gpus(machine, runs) -> None:
    machine(Card(), Card())
    remember(runs[0], GIB)
    slots, note = find_slots(runs, 4, ["0", "1"])
    assert slots == ["0", "1", "0", "1"]
    assert note is None


def test_each_gpu_takes_what_fits_there(machine, runs) -> None:
    machine(Card(free=40_000), Card(free=9_000), Card(free=500))
    remember(runs[0], filling(0.49, 40_000))
    slots, note = find_slots(runs, 6, ["0", "1", "2"])
    assert slots == ["0", "0"]
    assert note.startswith(
        "memory: 39.1 GiB of GPU 0, 8.8 GiB of GPU 1, 0.5 GiB of GPU 2 are free and a run takes up to "
    )
    assert note.endswith(": 2 at a time, not 6")


def test_where_none_fits_one_goes_to_the_emptiest_gpu(machine, runs) -> None:
    machine(Card(free=40_000), Card(free=50_000))
    remember(runs[0], 100 * GIB)
    assert find_slots(runs, 2, ["0", "1"])[0] == ["1"]


def test_what_a_process_takes_beside_its_tensors_counts(machine, runs) -> None:
    """By its tensors alone a third run would fit."""
    machine(Card(free=3_000))
    remember(runs[0], 1_000 << 20)
    assert len(find_slots(runs, 4, ["0"])[0]) == 1


def test_host_memory_bounds_what_a_gpu_would_hold(machine, runs, monkeypatch) -> None:
    machine(Card())
    monkeypatch.setattr(host, "free_memory", lambda: int(2.5 * PROCESS_WITH_CUDA))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slots, note = find_slots(runs, 16, ["0"])
    assert slots == ["0", "0"]
    assert note == (
        "memory: 3.8 GiB of host memory are free (hydra.launcher.mem_gb grants more) and a run takes up to 1.50: "
        "2 at a time, not 16"
    )


def test_four_runs_share_what_the_gpu_preset_asks_for(machine, runs, monkeypatch) -> None:
    """Memory of the host, and for each a core that launches kernels and one that does so going backwards."""
    machine(Card())
    preset = yaml.safe_load((ROOT / "slurm" / "hydra" / "launcher" / "gpu.yaml").read_text())
    monkeypatch.setattr(host, "free_memory", lambda: preset["mem_gb"] * GIB)
    assert find_slots(runs, 4, ["0"])[0] == ["0"] * 4
    assert preset["cpus_per_task"] >= 4 * 2


@pytest.mark.parametrize("peak, together", [(None, 2), (600 << 20, 2), (1500 << 20, 1)])
def test_on_a_cpu_a_run_takes_its_process_at_least(machine, runs, monkeypatch, peak: int | None, together: int) -> None:
    machine()
    monkeypatch.setattr(host, "free_memory", lambda: 2 * GIB)
    if peak is not None:
        remember(runs[0], peak, "cpu")
    slots, note = find_slots(runs, 4, [])
    assert slots == [None] * together
    assert f"{together} at a time, not 4" in note


def test_a_record_of_another_size_or_device_says_nothing(machine, runs) -> None:
    machine(Card(free=10_000))
    remember({**runs[0], "train": {**runs[0]["train"], "batch_size": 5}}, 1 << 10)
    remember(runs[0], 1 << 10, "cpu")
    slots, note = find_slots(runs, 3, ["0"])
    assert slots == ["0"] * 3
    assert note == "memory: no record yet of digits-preresnet_tiny-supervised; 3 at a time on one device, unchecked"


def test_a_gpu_of_which_nobody_says_what_is_free_is_unchecked(machine, runs) -> None:
    machine(Card(free="[Insufficient Permissions]"))
    remember(runs[0], GIB)
    slots, note = find_slots(runs, 2, ["0"])
    assert slots == ["0", "0"]
    assert note == "memory: nvidia-smi does not say what is free on GPU 0; 2 at a time on one device, unchecked"


def test_every_size_of_a_kind_counts(machine, runs) -> None:
    """The hungriest comes last but one."""
    machine(Card(free=10_000))
    large = [{**run, "train": {**run["train"], "batch_size": 500}} for run in runs]
    remember(large[0], filling(0.9, 10_000))
    remember(runs[0], 1 << 20)
    assert len(find_slots([large[1], runs[1]], 2, ["0"])[0]) == 1


def test_of_many_records_some_are_read(machine, runs, monkeypatch) -> None:
    monkeypatch.setattr(memory, "LOOKS", 0)
    remember(runs[0], GIB)
    assert memory.peak(runs[0], on_gpu=True) is None
