"""How a subject is measured: its time, memory, operations, and what the profiler sees of a step."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from harness.bench.subjects import Options, Subject
from harness.config import ConfigError
from harness.runtime import memory
from harness.runtime.console import Console

WAITS = {
    "cpu": ("aten::_local_scalar_dense",),
    "cuda": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
}
PRODUCTS = {"cpu": 2048, "cuda": 8192}  # side of the square matrices whose product shows the device's peak


def clock(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds that an action takes, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(subjects: list[Subject], options: Options, device: torch.device, console: Console) -> None:
    """Time every subject once a round, in an order that turns from round to round."""

    said = time.monotonic()
    for turn in range(options.rounds):
        shift = turn % len(subjects)
        for subject in subjects[shift:] + subjects[:shift]:
            subject.seconds.append(clock(functools.partial(subject.step, options.steps), device) / options.steps)
            subject.pipeline.append(clock(functools.partial(next, subject.batches), device))
        if time.monotonic() - said > 10:
            console.say(f"round {turn + 1} of {options.rounds}")
            said = time.monotonic()


def measure_memory(subject: Subject, device: torch.device) -> int:
    """Bytes that a step needs beyond what is held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        subject.step()
        return torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux":
        raise ConfigError("the memory of a step on the CPU is read from /proc, which only Linux has")
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory.status("VmRSS")
    subject.step()
    return memory.status("VmHWM") - before


class FlopCounter(TorchDispatchMode):
    """Adds up floating-point operations by operator (torch's own counter minds modules, which input gradients upset)."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(subject: Subject) -> int:
    with FlopCounter() as counter:
        subject.step()
    return counter.total


def measure_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of a large square matrix product in a precision; the best of several."""
    side = PRODUCTS[device.type]
    a = torch.randn(side, side, device=device, dtype=getattr(torch, precision))
    return 2 * side**3 / min(clock(lambda: a @ a, device) for _ in range(6))


def trace(subject: Subject, device: torch.device, path: Path | None) -> dict[str, float]:
    """One step under the profiler: shares of host and device, and how often it waits."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")

    with profile(activities=activities) as recorded:
        seconds = clock(subject.step, device)
    events = recorded.key_averages()
    if device.type == "cuda":
        busy = sum(event.self_device_time_total for event in events) / 1e6
    else:
        busy = sum(event.self_cpu_time_total for event in events if event.key.startswith("aten::")) / 1e6
    waits = sum(event.count for event in events if event.key in WAITS[device.type])
    # The clock itself waits once before and once after the step.
    waits -= 2 if device.type == "cuda" else 0
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(path))
    return {"busy": min(1.0, busy / seconds), "waits": waits}
