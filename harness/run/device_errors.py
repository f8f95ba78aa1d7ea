"""What goes wrong on a device: said in one line with what to change, and kept from the runs that come after it."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from harness.runtime import gpus, host

# What else torch, cuBLAS, cuDNN and the CPU's allocator call it.
EXHAUSTED = re.compile(r"out of memory|_ALLOC_FAILED|can't allocate memory", re.IGNORECASE)
ASKED = re.compile(r"(?:Tried to allocate|tried to allocate) ([\d.]+ \w+)")
FREE = re.compile(r"of which ([\d.]+ \w+) is free")


class OutOfMemory(RuntimeError):
    """A run needs more memory than there is; the message says how it may need less."""


class GpuFault(RuntimeError):
    """A GPU, or this process's part in it, answers no more."""


def explained(error: Exception, config: dict[str, Any]) -> Exception:
    """An error of a device in a line of ours; any other as it is."""
    said = str(error)
    if isinstance(error, (OutOfMemory, GpuFault)):
        return error
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and EXHAUSTED.search(said)
    ):
        on_gpu = not isinstance(error, MemoryError) and "CPUAllocator" not in said
        asked, free = ASKED.search(said), FREE.search(said)
        found = [f"{asked[1]} more were asked for"] if asked else []
        found += [f"{free[1]} are free"] if free else []
        numbers = f" ({', '.join(found)})" if found else ""
        return OutOfMemory(f"out of {'GPU' if on_gpu else 'host'} memory{numbers}; {advice(config, on_gpu)}")
    if isinstance(error, torch.AcceleratorError) or (isinstance(error, RuntimeError) and "CUDA error" in said):
        line = said.strip().splitlines()[0].rstrip(".")
        where = "; CUDA_LAUNCH_BLOCKING=1 shows where" if "asynchronously" in said else ""
        return GpuFault(f"{line}{where}{gpus.shared_fate()}")
    return error


def advice(config: dict[str, Any], on_gpu: bool) -> str:
    """How a run may need less memory than it asked for."""
    recipe, pack = config["train"], config["sweep"]["pack"]
    size, parts = recipe["batch_size"], recipe["accumulate"]
    ways = []
    if more := next((k for k in range(parts + 1, size // 2 + 1) if size % k == 0), None):
        ways.append(f"train.accumulate={more}")
    ways.append("a smaller train.batch_size")
    if on_gpu and recipe["precision"] != "bfloat16":
        ways.append("train.precision=bfloat16")
    if on_gpu and recipe["capture"] and recipe["compile"] is None:  # graphs keep what a step needs between steps
        ways.append("train.capture=false")
    if pack > 1:
        ways.append(f"sweep.pack={pack // 2}")
    if config["teachers"]["size"] and config["teachers"]["cache"] != "none":
        ways.append("teachers.cache=none")
    if not on_gpu and "SLURM_JOB_ID" in os.environ:
        ways.append(f"more {host.memory_option()}")
    return f"try {' or '.join(ways)}"


@contextlib.contextmanager
def giving_back(device: torch.device) -> Iterator[None]:
    """Have the memory of what runs in here go with it, for the next run of this process."""
    try:
        yield
    except OutOfMemory as error:
        for each in (error, error.__context__):  # their frames would keep what filled the memory
            traceback.clear_frames(each.__traceback__ if each else None)
        gc.collect()
        raise
    finally:
        if device.type == "cuda":  # compiled networks lie in cycles, which would wait for the garbage collector
            gc.collect()
            with contextlib.suppress(RuntimeError):  # of a GPU that was lost
                torch.cuda.empty_cache()
