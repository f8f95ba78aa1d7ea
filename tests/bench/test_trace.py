"""What a profiler's events say of a step. Those of a GPU are written here as torch reports them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from harness.bench.trace import STEP, count_waits, device_time


def event(name, start, end, on=DeviceType.CPU, annotation=False):
    """With the time of its kernels, which operators and kernels both report."""
    return SimpleNamespace(
        name=name,
        device_type=on,
        is_user_annotation=annotation,
        time_range=SimpleNamespace(start=start, end=end),
        self_device_time_total=end - start,
    )


RECORDED = [
    event("cudaDeviceSynchronize", 0, 1),  # the clock's
    event(STEP, 10, 60, annotation=True),
    event(STEP, 15, 80, DeviceType.CUDA, annotation=True),
    event("aten::convolution", 12, 30),
    event("convolution kernel", 15, 35, DeviceType.CUDA),
    event("kernel beside it", 30, 40, DeviceType.CUDA),
    event("Memcpy DtoH", 70, 80, DeviceType.CUDA),
    event("cudaMemcpyAsync", 40, 41),
    event("cudaStreamSynchronize", 41, 59),  # the step's one wait
    event("cudaDeviceSynchronize", 61, 80),  # the clock's again
    event("cudaDeviceSynchronize", 81, 82),  # the profiler's
]


def test_a_gpu_is_busy_while_kernels_or_copies_run_and_each_moment_counts_once():
    assert device_time(RECORDED) == (40 - 15) + (80 - 70)


def test_waits_of_the_clock_and_of_the_profiler_are_not_the_steps():
    assert count_waits(RECORDED, "cuda") == 1


def test_events_of_this_torch_are_read():
    number = torch.ones(())
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        float(number)
        with record_function(STEP):
            float(number), float(number)
        float(number)
    assert count_waits(recorded.events(), "cpu") == 2
    assert device_time(recorded.events()) == 0
