"""How many runs fit beside each other, by what runs of their kind took before.

A run's peak is in its record: tensors on a GPU, the whole process on a CPU. What is free is asked before any of them has
begun, and as many slots are made as the hungriest of them would fill: so what has begun, but not yet taken its memory,
is counted.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from typing import Any

from harness.jobs.slots import Slot, spread
from harness.runtime import gpus, host
from harness.store.files import Damaged
from harness.store.identity import is_teacher, run_directory
from harness.store.record import read_record

Config = dict[str, Any]
RECORDS, LOOKS = 8, 64  # used of each kind of run, and looked at: thousands would take long on a network file system
# Of a recipe: runs that differ here need different memory.
SIZES = ("batch_size", "accumulate", "precision", "compile", "capture", "optimiser", "average")

# Of a GPU, beside a run's tensors: CUDA's context and libraries. The allocator keeps more than it hands out, and a peak
# is the training's, which the evaluation may exceed a little. Both are estimates.
CONTEXT, SLACK = 600 << 20, 1.25
# Of the host: the smallest run there is (857 MB measured), and one that runs CUDA, whose own part is an estimate.
PROCESS, PROCESS_WITH_CUDA = 850 << 20, 1536 << 20
GIB = 2**30


def find_slots(configs: list[Config], most: int, names: list[str]) -> tuple[list[Slot], str | None]:
    """Slots for at most `most` of the runs at a time, spread over GPUs (by name for CUDA_VISIBLE_DEVICES; none: the CPU);
    and a line to say what made them fewer, or what is unknown. At least one, whatever is free.
    """
    wanted = spread(most, names)
    if most == 1 or not configs:
        return wanted, None
    unlike = {(kind(config), size(config)): config for config in configs}
    peaks = {which: peak(config, bool(names)) for which, config in unlike.items()}
    known = [found for found in peaks.values() if found is not None]
    unknown = sorted({f"no record yet of {name}" for (name, _), found in peaks.items() if found is None})
    slots, note = wanted, ""
    if names and known:
        need = int(SLACK * max(known)) + CONTEXT
        free = gpus.free_bytes(names)
        unknown += [f"nvidia-smi does not say what is free on GPU {name}" for name in names if name not in free]
        slots = fit_gpus(most, names, free, need)
        if len(slots) < most:
            note = f"{told(free)} are free and a run takes up to {need / GIB:.2f}"
    processes = max(config.get("devices", 1) for config in configs)
    need = processes * max([PROCESS_WITH_CUDA] if names else [PROCESS, *known])
    there = host.free_memory()
    if there is not None and there < len(slots) * need:
        slots = slots[: max(1, there // need)]
        more = f" ({host.memory_option()} grants more)" if "SLURM_JOB_ID" in os.environ else ""
        note = f"{there / GIB:.1f} GiB of host memory are free{more} and a run takes up to {need / GIB:.2f}"
    if len(slots) < most:
        return slots, f"memory: {note}: {len(slots)} at a time, not {most}"
    if unknown:
        where = "on one device" if len(names) <= 1 else f"on {len(names)} GPUs"
        return slots, f"memory: {', '.join(unknown)}; {most} at a time {where}, unchecked"
    return slots, None


def fit_gpus(most: int, names: list[str], free: dict[str, int], need: int) -> list[Slot]:
    """Slots in turns on the GPUs, on each at most its share and as many as fit."""
    share = math.ceil(most / len(names))
    fitting = {name: min(share, free[name] // need) if name in free else share for name in names}
    found: list[Slot] = [name for k in range(share) for name in names if fitting[name] > k]
    return found[:most] or [max(names, key=free.__getitem__)]


def told(free: dict[str, int]) -> str:
    """Free memory in words."""
    return ", ".join(f"{count / GIB:.1f} GiB of GPU {name}" for name, count in free.items())


def kind(config: Config) -> str:
    """What runs of about equal size have in common: data, model and method, or that they are teachers."""
    what = "set" if is_teacher(config) else config["method"]["name"]
    return f"{config['data']['name']}-{config['model'].replace('/', '_')}-{what}"


def size(config: Config) -> tuple[Any, ...]:
    """What else decides how much memory a run of a kind takes."""
    teachers, recipe = config["teachers"], config["train"]
    # By how long a run is, `auto` decides whether teachers' answers lie on the GPU.
    epochs = recipe["epochs"] if teachers["cache"] == "auto" else None
    method = json.dumps(config["method"], sort_keys=True)
    return (
        *(config["data"].get("image_size"), config["data"].get("train")),
        *(method, teachers["size"], teachers["cache"], epochs),
        *(recipe.get(name) for name in SIZES),
    )


def peak(config: Config, on_gpu: bool) -> int | None:
    """Bytes that the hungriest of some earlier runs of the same kind and size took; None where there were none."""
    found: list[int] = []
    for file in itertools.islice(run_directory(config).parent.glob(f"{kind(config)}*/record.json"), LOOKS):
        with contextlib.suppress(Damaged):
            record = read_record(file.parent)
            if record is None or record["status"] != "done" or size(record["config"]) != size(config):
                continue
            if (record["provenance"]["device"] != "cpu") == on_gpu:
                found.append(record["cost"]["peak_memory_bytes"])
        if len(found) == RECORDS:
            break
    return max(found, default=None)
