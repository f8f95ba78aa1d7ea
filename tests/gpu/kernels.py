"""What a step asks a GPU to run, by the names of its kernels."""

from __future__ import annotations

import re

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import methods
from tests import launches
from tests.gpu.sheet import Sheet
from tests.gpu.steps import ALL
from tests.gpu.work import Work, noise, prepare

CONVERSION = re.compile("nchwToNhwc|nhwcToNchw", re.IGNORECASE)  # cuDNN's kernels that change a layout
STEM = 4  # conversions of images and weights of three channels, for each pass of a network
MORE = 1.15  # kernels, for each operator that was counted


def launches_as_counted(sheet: Sheet) -> None:
    """Check 9: a step of every method on WRN-28-4: kernels that change a layout, and how many kernels there are."""
    batch = 4 if sheet.small else 128
    _, stored = launches.read()
    data = noise(sheet.device, 8 if sheet.small else 32, 4 * batch)
    for precision, names in (("float32", ALL), ("tf32", ["combined"]), ("bfloat16", ["combined"])):
        for name in names:
            method = methods.load(name)()
            model = "wrn10_1" if sheet.small else "wrn28_4"
            work = prepare(data, method, model, batch_size=batch, precision=precision, capture=False)
            kernels = list_kernels(sheet, work)
            conversions = sum(bool(CONVERSION.search(kernel)) for kernel in kernels)
            told = name if precision == "float32" else f"{name} in {precision}"
            sheet.note(**{told: len(kernels), f"{told}, conversions": conversions})
            if sheet.on_gpu:
                most = STEM * method.passes(4)
                sheet.expect(conversions <= most, f"{told}: {conversions} conversions of layouts, not at most {most}")
                counted = stored[f"wrn28_4 {name} {precision.replace('tf32', 'float32')}"].total()
                sheet.expect(
                    len(kernels) <= MORE * counted,
                    f"{told}: {len(kernels)} launches, though it has {counted} operators",
                )


def list_kernels(sheet: Sheet, work: Work) -> list[str]:
    """The kernels and copies of a step and its batch, by name; on a CPU there are none."""
    batches = work.batches()
    for _ in range(2):
        work.step(next(batches))
    activities, wait = [ProfilerActivity.CPU], lambda: None
    if sheet.on_gpu:
        activities, wait = [*activities, ProfilerActivity.CUDA], torch.cuda.synchronize
    wait()
    with profile(activities=activities) as recorded:
        work.step(next(batches))
        wait()
    found = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
    # Named ranges of the host, such as an optimiser's step, are shown on the device as well.
    return [event.name for event in found if not event.is_user_annotation]
