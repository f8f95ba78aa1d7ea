"""Teachers' answers looked up on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

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
    """Check 14: runs that look their teachers' answers up learn what others do, without a copy in a step; and the
    same where the answers do not fit onto the device.
    """
    expected, known = losses(settings(sheet, "runs", "none")), settings(sheet, "runs", "views")
    found = losses(known)
    off = distance(found, expected)
    sheet.note(off=off)
    sheet.expect(off <= 1e-3, f"losses with cached views differ by {off:.1e}")
    look_up(sheet, known, "")
    with nothing_free():
        crowded = {**known, "runs": str(sheet.folder / "crowded"), "bank": str(sheet.folder / "runs" / "teachers")}
        apart = distance(losses(crowded), found)
        sheet.note(off_on_the_host=apart)
        sheet.expect(apart <= 1e-4, f"losses with views on the host differ by {apart:.1e}")
        look_up(sheet, crowded, " on the host")


@contextlib.contextmanager
def nothing_free() -> Iterator[None]:
    """A GPU that says that all of its memory is taken."""
    with (
        mock.patch.object(torch.cuda, "mem_get_info", lambda device=None: (0, 1)),
        mock.patch.object(torch.cuda, "memory_reserved", torch.cuda.memory_allocated),
    ):
        yield


def look_up(sheet: Sheet, config: dict[str, Any], where: str) -> None:
    """Steps that look up, here or on the host: none waits, and those with all answers on the device copy nothing."""
    work = at_work(config, sheet.device)
    teachers = work.trainer.teachers
    sheet.expect(isinstance(teachers, CachedTeachers), f"the teachers look nothing up{where}")
    (lie,), should = {known.device.type for known in teachers.answers}, "cpu" if where else sheet.device.type
    sheet.expect(lie == should, f"the answers lie on {lie}, not on {should}")
    copies = [kernel for kernel in list_kernels(sheet, work) if "HtoD" in kernel or "DtoH" in kernel]
    sheet.note(**{f"copies{where}": len(copies)})
    sheet.expect(bool(where) or not copies, f"a step copies: {', '.join(sorted(set(copies)))}")
    batches = work.batches()
    work.step(next(batches))
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
