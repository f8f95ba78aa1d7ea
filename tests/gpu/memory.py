"""Memory of a GPU: what runs leave behind, and what they say that they took."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import methods
from harness.run.data import load_images
from harness.run.run import execute
from harness.runtime.console import Console
from tests.gpu.sheet import Sheet
from tests.gpu.work import digits, prepare
from tests.running import configure

LITTLE = 64 << 20  # bytes: too few for a step of WRN-16-4 on 500 digits
SPARE = 64 << 10  # bytes beside the images, for their labels: less than a student of preresnet_tiny takes


def leaves_the_data(sheet: Sheet) -> None:
    """Check 10: runs in this process, one of them too large, the last one compiled; the images stay for the next run,
    nothing else.
    """
    changes = {"device": str(sheet.device), "teachers__train": {"compile": None}}
    run_and_weigh(sheet, "combined", **changes)
    if sheet.on_gpu:
        with little_memory(sheet.device):
            run_and_weigh(sheet, "kd", **changes, model="wrn16_4", train__batch_size=500)
    run_and_weigh(sheet, "weight_averaging", **changes)
    if not sheet.small:
        run_and_weigh(sheet, "kd", **changes, train__compile="default")
    gc.collect()
    sheet.note(collected=live_bytes(sheet.device))


def run_and_weigh(sheet: Sheet, method: str, **changes: Any) -> None:
    """Run a run, and write down what it left beside the images."""
    config, console = configure(sheet.folder / "runs", method, **changes), Console()
    try:
        told = f"{method} {execute(config, console)['status']}"
    except RuntimeError as error:
        told = f"{method} failed"
        sheet.note(failure=str(error).splitlines()[0])
    data, _ = load_images(config["data"], sheet.device, console)
    images = storage_bytes([split.images for split in (data.train, data.validation, data.test)])
    left = live_bytes(sheet.device) - images
    sheet.note(**{f"bytes after {told}": left})
    sheet.expect(left <= SPARE, f"{left:,} bytes beside the images are left where {told}")


@contextlib.contextmanager
def little_memory(device: torch.device) -> Iterator[None]:
    """A GPU on which this process may take no more than LITTLE in here."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LITTLE / torch.cuda.get_device_properties(device).total_memory, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def live_bytes(device: torch.device) -> int:
    """Bytes of tensors on a device; on the CPU, of those that Python knows."""
    if device.type == "cuda":
        torch._C._cuda_clearCublasWorkspaces()  # of the library, not of a run
        return torch.cuda.memory_allocated(device)
    return storage_bytes([found for found in gc.get_objects() if type(found) in (Tensor, nn.Parameter)])


def storage_bytes(tensors: list[Tensor]) -> int:
    """Of all storages behind tensors, each once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def records_the_peak(sheet: Sheet) -> None:
    """Check 11: what a record calls the peak, beside that of a step of the same training. What captured steps keep comes
    to it, and is only measured.
    """
    model, batch = ("preresnet_tiny", 50) if sheet.small else ("wrn16_4", 250)
    own = peak_of_a_step(sheet, model, batch)
    eager, captured = (recorded_peak(sheet, model, batch, capture) for capture in (False, True))
    sheet.note(own_mb=own / 1e6, recorded_mb=eager / 1e6, recorded_captured_mb=captured / 1e6)
    if sheet.on_gpu:  # of a CPU's process everything counts
        sheet.expect(abs(eager / own - 1) <= 0.1, f"{eager / own:.2f} of a step's own peak is recorded")
        sheet.expect(captured >= 0.9 * own, f"captured, {captured / own:.2f} of a step's own peak is recorded")


def peak_of_a_step(sheet: Sheet, model: str, batch: int) -> int:
    """The most bytes of tensors that a step of kd holds, once algorithms are chosen."""
    work = prepare(digits(sheet.device), methods.load("kd")(), model, batch_size=batch, capture=False)
    work.losses(2)
    if sheet.device.type != "cuda":
        return live_bytes(sheet.device)
    torch.cuda.reset_peak_memory_stats(sheet.device)
    work.losses(1)
    return torch.cuda.max_memory_allocated(sheet.device)


def recorded_peak(sheet: Sheet, model: str, batch: int, capture: bool) -> int:
    """Bytes of a run of kd, by its record."""
    config = configure(
        sheet.folder / f"capture={capture}",  # which is no other run, and so would not be trained again
        "kd",
        device=str(sheet.device),
        model=model,
        train__batch_size=batch,
        train__steps_per_epoch=2,
        train__capture=capture,
        teachers__cache="none",
        evaluate__diagnostics=False,
    )
    return execute(config, Console())["cost"]["peak_memory_bytes"]
