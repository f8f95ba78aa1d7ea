"""Teachers' answers looked up on a GPU."""

from __future__ import annotations

from typing import Any

import torch

from harness.config.methods import build_method
from harness.run.bank import Bank
from harness.run.data import load_images
from harness.run.run import execute
from harness.run.views import CachedTeachers
from harness.runtime.console import Console
from harness.store.history import read_history
from harness.store.identity import run_directory
from tests.gpu.kernels import list_kernels
from tests.gpu.sheet import Sheet
from tests.gpu.steps import distance, no_waits
from tests.gpu.work import Work, prepare
from tests.running import configure


def looks_up_views(sheet: Sheet) -> None:
    """Check 14: runs that look their teachers' answers up learn what others do, without a copy in a step."""
    asked, known = (settings(sheet, "runs", cache) for cache in ("none", "views"))
    expected = losses(asked)
    off = distance(losses(known), expected)
    sheet.note(off=off)
    sheet.expect(off <= 1e-3, f"losses with cached views differ by {off:.1e}")
    work = at_work(known, sheet.device)
    sheet.expect(isinstance(work.trainer.teachers, CachedTeachers), "the teachers look nothing up")
    copies = [kernel for kernel in list_kernels(sheet, work) if "HtoD" in kernel or "DtoH" in kernel]
    sheet.note(copies=len(copies))
    sheet.expect(not copies, f"a step copies: {', '.join(sorted(set(copies)))}")
    batches = work.batches()
    with no_waits(sheet.device):
        work.step(next(batches))


def at_work(config: dict[str, Any], device: torch.device) -> Work:
    """The training of a run whose teachers are in the bank, at step 0."""
    console, method = Console(), build_method(config)
    data, fingerprint = load_images(config["data"], device, console)
    teachers = Bank(config, data, fingerprint, device).teachers(method, console, lambda: False)
    return prepare(data, method, teachers=teachers)


def settings(sheet: Sheet, folder: str, cache: str) -> dict[str, Any]:
    return configure(sheet.folder / folder, "ensemble_kd", device=str(sheet.device), teachers__cache=cache)


def losses(config: dict[str, Any]) -> list[float]:
    """Of the epochs of a run."""
    execute(config, Console())
    return [epoch["loss"] for epoch in read_history(run_directory(config))]
