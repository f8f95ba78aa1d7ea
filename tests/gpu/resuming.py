"""Trainings that stop and go on: in another process, on another kind of device, with layers that draw."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from harness import streams
from harness.run.run import execute
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted
from harness.store.identity import run_directory
from harness.store.record import read_record
from tests.gpu.child import ROOT
from tests.gpu.sheet import Sheet
from tests.gpu.steps import distance
from tests.gpu.work import Work, digits, prepare, with_labels
from tests.running import configure

EXECUTE = """
import json, sys
from harness.run.run import execute
from harness.runtime.console import Console
execute(json.loads(sys.argv[1]), Console())
"""


def repeats_itself(sheet: Sheet) -> None:
    """Check 3: a whole run, and one that is stopped in mid-epoch and goes on in another process. How far the default
    repeats itself is only measured.
    """
    for deterministic in (True,) if sheet.small else (True, False):  # a CPU always repeats itself
        off = resume_elsewhere(sheet, deterministic)
        sheet.note(**{"deterministic" if deterministic else "default": "bit-equal" if off == 0 else off})
        sheet.expect(off == 0 or not deterministic, f"deterministic=true: weights differ by up to {off:.1e}")


def resume_elsewhere(sheet: Sheet, deterministic: bool) -> float:
    """The largest difference between weights of a run that went through and of one that was stopped."""
    changes = {"deterministic": deterministic, "train__epochs": 3, "train__steps_per_epoch": 8}
    whole, stopped = (
        configure(sheet.folder / f"{name}-{deterministic}", "combined", device=str(sheet.device), **changes)
        for name in ("whole", "stopped")
    )
    stopped["bank"] = str(Path(whole["runs"]) / "teachers")
    execute(whole, Console())
    with contextlib.suppress(Interrupted):
        execute(stopped, Console(), stop_at(run_directory(stopped) / "history.jsonl"))
    command = [sys.executable, "-c", EXECUTE, json.dumps(stopped)]
    subprocess.run(command, cwd=ROOT, check=True)
    record = read_record(run_directory(stopped))
    attempts = record["provenance"]["attempts"]
    sheet.expect(attempts == 2, f"the run that was to be stopped took {attempts} attempts, not 2")
    ours, theirs = (load_file(run_directory(config) / "student.safetensors") for config in (whole, stopped))
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def stop_at(history: Path, steps: int = 3) -> Callable[[], bool]:
    """A stop request that comes so many steps after the first epoch."""
    asked = itertools.count()
    return lambda: history.exists() and next(asked) >= steps


def crosses_devices(sheet: Sheet) -> None:
    """Check 4: five steps, a checkpoint, and the next five on the other kind of device, in both directions."""
    gpu, cpu = (
        (sheet.device, True),
        (torch.device("cpu"), False),
    )  # in a rehearsal the memory format is all that differs
    for name, recipe in (
        ("supervised", {}),
        ("combined", {"average": "ema"}),
        ("supervised", {"optimiser": "adamw", "lr": 0.002}),
    ):
        for direction, (one, other) in {"to the CPU": (gpu, cpu), "to the GPU": (cpu, gpu)}.items():
            first, second = (
                prepare(digits(device), with_labels(name), channels_last=channels_last, **recipe)
                for device, channels_last in (one, other)
            )
            first.losses(5)
            second.training.restore(first.state())
            off = distance(second.losses(5), first.losses(5))
            told = f"{name} {recipe.get('optimiser', 'sgd')} {direction}"
            sheet.note(**{told: off})
            sheet.expect(off <= 1e-3, f"{told}: the next losses differ by {off:.1e}")


def resumes_dropout(sheet: Sheet) -> None:
    """Check 5: a network whose layers draw goes on with the draws that it would have had."""
    data = digits(sheet.device)

    def work() -> Work:
        return prepare(data, with_labels("supervised"), build=with_dropout)

    first = work()
    first.losses(5)
    state = first.state()
    expected = first.losses(5)
    torch.manual_seed(12345)  # of the CPU and of every GPU: where else they stand after another start
    resumed, astray = work(), work()
    resumed.training.restore(state)
    off = distance(resumed.losses(5), expected)
    astray.training.restore({**state, "random": torch.get_rng_state(), "device_random": None})
    without = distance(astray.losses(5), expected)
    sheet.note(resumed=off, with_other_draws=without)
    sheet.expect(off <= 1e-5, f"losses after the checkpoint differ by {off:.1e}")
    sheet.expect(without > 1e-3, "other draws give the same losses: the network draws nothing")


def with_dropout(seed: int | str) -> nn.Module:
    """A small network for digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.derive(seed, "init"))
        convolution, head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(512, 10)
        return nn.Sequential(convolution, nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), head)
