"""torch.compile and CUDA graphs: everything that was to be compiled is, and computes the same."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._inductor.cudagraph_trees import CUDAGraphNode
from torch.profiler import ProfilerActivity, profile

from harness import streams
from harness.training import compilation
from tests.gpu.sheet import Sheet
from tests.gpu.steps import distance
from tests.gpu.work import Work, digits, prepare, with_labels

REGION = "Torch-Compiled Region"  # what the profiler calls a call of a compiled network
PAIRS = 12  # of four members
CALLS = 9  # of networks by a step of combined: a pair of teachers, a pair of members, four teachers, the student


def compiles_run_after_run(sheet: Sheet) -> None:
    """Check 7: steps of combined with all its pairs, then those of kd, as runs of one process."""
    for name, calls, steps in (("combined", CALLS, 4 * PAIRS), ("kd", 2, 2)):
        work = prepare(digits(sheet.device), with_labels(name), build=few_layers, compile="default")
        work.losses(steps)
        found = compiled_calls(work)
        told = compilation.describe("default")
        sheet.note(**{f"{name}, calls": found, f"{name}, graphs": told["graphs"]})
        sheet.expect(found == calls, f"{name}: of {calls} calls of networks in a step {found} are compiled")
        sheet.expect(not told["not_compiled"], f"{name}: not everything is compiled: {told['not_compiled']}")
        sheet.expect(told["graphs"] <= 8, f"{name}: {told['graphs']} graphs, as if each pair had its own")


def compiled_calls(work: Work) -> int:
    """How many networks a step calls in their compiled form."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work.losses(1)
    return sum(event.count for event in recorded.key_averages() if event.key.startswith(REGION))


def replays_graphs(sheet: Sheet) -> None:
    """Check 8: steps of combined as CUDA graphs, the trainer's and torch.compile's, and eagerly. In two parts a step draws
    two pairs, so that there are more kinds of steps than graphs.
    """
    steps, parts = 6 if sheet.small else 60, {"accumulate": 2, "average": "ema"}
    compare_with_eager(sheet, "captured", steps, {}, {"capture": True})
    compare_with_eager(sheet, "captured, two parts", steps, parts, {"capture": True})
    compare_with_eager(sheet, "compiled, two parts", steps, parts, {"compile": "reduce-overhead"})


def compare_with_eager(sheet: Sheet, told: str, steps: int, recipe: dict[str, Any], graphed: dict[str, Any]) -> None:
    """Losses of steps with graphs beside those without, and how many graphs there are."""

    def work(**more: Any) -> Work:
        method = with_labels("kd" if sheet.small else "combined")  # which takes a CPU a minute to compile
        return prepare(digits(sheet.device), method, build=few_layers, lr=0.003, **recipe, **more)

    expected = work(capture=False).losses(steps)
    with mock.patch.object(CUDAGraphNode, "__init__", autospec=True, side_effect=CUDAGraphNode.__init__) as recorded:
        at_work = work(**graphed)
        off = distance(at_work.losses(steps), expected)
    own = at_work.trainer.capture.describe() if at_work.trainer.capture else {"graphs": 0, "failure": None}
    graphs = recorded.call_count + own["graphs"]
    sheet.note(**{told: off, f"{told}, graphs": graphs})
    sheet.expect(off <= 1e-3, f"{told}: losses differ by {off:.1e} from the eager ones")
    sheet.expect(own["failure"] is None, f"{told}: {own['failure']}")
    if sheet.on_gpu:
        sheet.expect(0 < graphs < 80, f"{told}: {graphs} graphs")


def few_layers(seed: int | str) -> nn.Module:
    """Of few kinds of layers and kernels, so that compiling takes seconds; for digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.derive(seed, "init"))
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
