"""torch.compile and CUDA graphs: everything that was to be compiled is, and computes the same."""

from __future__ import annotations

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


def records_graphs(sheet: Sheet) -> None:
    """Check 8: steps of combined in two parts, with a mean of the weights, as CUDA graphs and eagerly."""
    steps = 6 if sheet.small else 60
    recipe = {"accumulate": 2, "average": "ema", "lr": 0.003}
    data, method = digits(sheet.device), with_labels("combined")
    expected = prepare(data, method, build=few_layers, **recipe).losses(steps)
    graphs = mock.patch.object(CUDAGraphNode, "__init__", autospec=True, side_effect=CUDAGraphNode.__init__)
    work = prepare(data, method, build=few_layers, compile="reduce-overhead", **recipe)
    with graphs as recorded:
        found = work.losses(steps)
    sheet.note(steps=steps, off=distance(found, expected), graphs=recorded.call_count)
    sheet.expect(sheet.measured["off"] <= 1e-3, f"losses differ by {sheet.measured['off']:.1e} from the eager ones")
    if sheet.on_gpu:
        sheet.expect(0 < recorded.call_count < 80, f"{recorded.call_count} graphs were recorded")


def few_layers(seed: int | str) -> nn.Module:
    """Of few kinds of layers and kernels, so that compiling takes seconds; for digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.derive(seed, "init"))
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
