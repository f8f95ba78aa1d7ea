"""Steps of every method: nothing in them waits, and they compute what the CPU computes."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

import methods
from harness.config.options import CHOICES, DATA
from harness.training.capture import is_capturable
from harness.training.data import Dataset
from harness.training.data.changes import image_changes
from methods.perturbation import Perturbed
from tests.gpu.sheet import Sheet
from tests.gpu.work import Work, digits, prepare, with_labels

ALL = ("supervised", *methods.VARIANTS)  # tried with everything
BASELINES = [name for name in methods.BASELINES if name not in ALL and methods.load(name).trained]
LR = 0.01  # at larger ones a rounding has grown to 1e-4 after ten steps
# Each method is tried with each of these, and with options of its own.
RECIPES: dict[str, dict[str, Any]] = {
    **{f"precision={name}": {"precision": name} for name in CHOICES["precision"]},
    "channels_last=false": {"channels_last": False},
    "accumulate=2": {"accumulate": 2},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
    "mixup=0.2": {"mixup": 0.2},
    "average=ema": {"average": "ema"},
    "average=swa": {"average": "swa"},
    "optimiser=adamw": {"optimiser": "adamw"},
}
CHANGES: dict[str, dict[str, Any]] = {
    "randaugment=2": {"randaugment": 2},
    "cutout=4": {"cutout": 4},
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "kd": [{"alpha": 0.5}],
    "ensemble_kd": [{"average": "logits"}],
    "weight_averaging": [{"factors": "normal"}, {"factors": "sign", "merge": "outer"}, {"decay": "none"}],
    "perturbation": [{"keep_clean": True}, {"pair": [0, 1]}],
    "combined": [{"keep_clean": True}, {"student_term": False}, {"pair": [1, 0]}, {"reestimate_bn": True}],
}


def trials(data: Dataset) -> Iterator[tuple[str, Work]]:
    """Every method with every option, by name, at step 0; the last one of each method is replayed as a CUDA graph."""
    for name in ALL:
        cls = methods.load(name)
        for told, recipe in RECIPES.items():
            yield f"{name} {told}", prepare(data, cls(), capture=False, **recipe)
        for told, options in CHANGES.items():
            changes = image_changes(asdict(DATA["digits"]) | options, data)
            yield f"{name} {told}", prepare(data, cls(), capture=False, changes=changes)
        for options in OPTIONS.get(name, []):
            yield f"{name} {options}", prepare(data, cls(**options), capture=False)
        one_kind = {"pair": [0, 1]} if issubclass(cls, Perturbed) else {}
        yield f"{name} captured", prepare(data, cls(**one_kind), capture=True)
    for name in BASELINES:
        method = methods.load(name)()
        if not isinstance(method, Perturbed):  # whose steps are of more kinds than two show; a variant stands for it
            yield name, prepare(data, method, capture=is_capturable(method))


def never_waits(sheet: Sheet) -> None:
    """Check 1: two steps and their batches, of every method and options, where CUDA refuses to let the host wait."""
    data, tried, waiting = digits(sheet.device), 0, {}
    for name, work in trials(data):
        batches = work.batches()
        for _ in range(2):
            work.step(next(batches))  # an epoch's draws are sent, algorithms chosen, graphs captured
        try:
            with no_waits(sheet.device):
                for _ in range(2):
                    work.step(next(batches))
        except RuntimeError as error:
            waiting[name] = f"{first_line(error)} at {find_line(error)}"
        if sheet.on_gpu and work.trainer.capture:
            captured = work.trainer.capture.describe()
            sheet.expect(captured["graphs"] > 0, f"{name}: no step was captured: {captured['failure']}")
        tried += 1
    sheet.note(trials=tried, waiting=len(waiting))
    for name, why in waiting.items():
        sheet.expect(False, f"{name}: {why}")


@contextlib.contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """On CUDA, torch raises RuntimeError in here where the host would wait for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def find_line(error: Exception) -> str:
    """The innermost line of the project that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/harness/" in frame.filename or "/methods/" in frame.filename]
    return f"{ours[-1].filename}:{ours[-1].lineno}" if ours else "an unknown line"


def computes_as_the_cpu(sheet: Sheet) -> None:
    """Check 2: the first ten losses of every method in exact float32; how far TF32 is off is only measured."""
    worst = {}
    for name in ALL if sheet.small else (*BASELINES, *ALL):
        here, there = (
            prepare(digits(device), with_labels(name), lr=LR).losses(10)
            for device in (sheet.device, torch.device("cpu"))
        )
        worst[name] = distance(here, there)
        sheet.note(**{name: worst[name]})
        sheet.expect(worst[name] <= 1e-4, f"{name}: losses differ by {worst[name]:.1e} from the CPU's")
    if "tf32" in CHOICES["precision"]:
        work = prepare(digits(sheet.device), with_labels("combined"), precision="tf32", lr=LR)
        sheet.note(combined_in_tf32=distance(work.losses(10), there))


def distance(some: list[float], others: list[float]) -> float:
    """The largest relative difference of losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(some, others, strict=True))
