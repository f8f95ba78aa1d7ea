"""How many runs fit on one device together, by what runs of their kind took before.

A run's peak is in its record: tensors on a GPU, the whole process on a CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

from harness.store.files import Damaged
from harness.store.identity import is_teacher, run_directory
from harness.store.record import read_record

Config = dict[str, Any]
RECORDS = 8  # looked at for each kind of run: thousands would take long on a network file system
CONTEXT = 600 << 20  # bytes of a GPU that a process takes beside its tensors


def most_together(configs: list[Config], pack: int, gpus: list[str]) -> tuple[int, str | None]:
    """How many of the runs may share a device, at most `pack`; and a line to say where that is fewer, or unknown.

    gpus are those that the runs go to, as CUDA_VISIBLE_DEVICES names them.
    """
    if pack == 1 or not configs:
        return pack, None
    on_gpu = bool(gpus) and configs[0]["device"] != "cpu"
    kinds = {kind(config): config for config in configs}
    peaks = {name: peak(config, on_gpu) for name, config in kinds.items()}
    unknown = sorted(name for name, found in peaks.items() if found is None)
    need = max((found for found in peaks.values() if found is not None), default=None)
    free = free_on_gpus(gpus) if on_gpu else free_memory()
    if need is not None and free is not None and free < pack * need:
        fitting = max(1, int(free // need))
        return fitting, (
            f"memory: {free / 2**30:.1f} GiB are free and a run takes up to {need / 2**30:.2f}: "
            f"{fitting} at a time, not sweep.pack={pack}"
        )
    if unknown or free is None:
        why = f"no record yet of {', '.join(unknown)}" if unknown else "nobody says how much is free"
        return pack, f"memory: {why}; {pack} at a time on one device, unchecked"
    return pack, None


def kind(config: Config) -> str:
    """What runs of about equal size have in common: data, model and method, or that they are teachers."""
    what = "set" if is_teacher(config) else config["method"]["name"]
    return f"{config['data']['name']}-{config['model'].replace('/', '_')}-{what}"


def peak(config: Config, on_gpu: bool) -> int | None:
    """Bytes that the hungriest of some earlier runs of the same kind took; None where there were none."""
    found = []
    for file in itertools.islice(run_directory(config).parent.glob(f"{kind(config)}*/record.json"), RECORDS):
        with contextlib.suppress(Damaged):
            record = read_record(file.parent)
            if record is None or record["status"] != "done":
                continue
            if (record["provenance"]["device"] != "cpu") == on_gpu:
                found.append(record["cost"]["peak_memory_bytes"] + (CONTEXT if on_gpu else 0))
    return max(found, default=None)


def free_on_gpus(gpus: list[str]) -> int | None:
    """Bytes that are free on the fullest of these GPUs; None where nvidia-smi does not say."""
    # Not through CUDA, which would take memory on each of them itself.
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={','.join(gpus)}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return min(int(line) for line in said.split()) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def free_memory() -> int | None:
    """Bytes that this SLURM job was granted, or that are free on this machine; None where nobody says."""
    if granted := os.environ.get("SLURM_MEM_PER_NODE"):
        return int(granted) << 20
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None
