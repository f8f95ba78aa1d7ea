"""One step as torch's profiler sees it: how long the device works, and how often the step waits for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from harness.bench.measurement import clock, synchronise
from harness.bench.subjects import Subject

STEP = "bench step"
# What a host that waits is in: on a CPU, where nothing waits, what would wait on a GPU.
WAITS = {
    "cpu": {"aten::_local_scalar_dense"},
    "cuda": {
        *("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"),
        *("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize"),
    },
}


def trace(subject: Subject, device: torch.device, path: Path | None) -> dict[str, float]:
    """One step under the profiler, whose trace goes to `path`: how often it `waits`, and `busy_s`, the seconds in which
    the device works; on a CPU `busy`, the share of the step in which an operator runs.
    """
    on_gpu = device.type == "cuda"

    def step() -> None:
        with record_function(STEP):
            subject.step()

    # Torch says that CUDA graphs crash where its profiler lets go of the device between traces.
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    synchronise(device)
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as recorded:
        seconds = clock(step, device)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(path))
    events = recorded.events()
    waits = count_waits(events, device.type)
    if on_gpu:
        return {"waits": waits, "busy_s": device_time(events) / 1e6}
    operators = sum(event.self_cpu_time_total for event in events if event.name.startswith("aten::")) / 1e6
    return {"waits": waits, "busy": min(1.0, operators / seconds)}


def device_time(events: Iterable[Any]) -> float:
    """Microseconds in which a GPU does something, by a profiler's events.

    Only its kernels and copies count: an operator's event repeats the time of the kernels that it launched, an
    annotation on the device spans the gaps between them. What runs beside each other counts once.
    """
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def count_waits(events: Iterable[Any], kind: str) -> int:
    """Waits inside of the step: the clock waits before and after it, and so does the profiler."""
    events = list(events)
    (step,) = (event for event in events if event.name == STEP and event.device_type == DeviceType.CPU)
    return sum(
        event.name in WAITS[kind] and step.time_range.start <= event.time_range.start <= step.time_range.end
        for event in events
    )
