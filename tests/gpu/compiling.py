"""torch.compile and CUDA graphs: everything that was to be compiled is, and computes the same."""

from __future__ import annotations

from unittest import mock

import torch
from torch import nn
from torch._inductor.cudagraph_trees import CUDAGraphNode
from torch.profiler import ProfilerActivity, profile

from harness import streams
from tests.gpu.sheet import Sheet
from tests.gpu.steps import distance
from tests.gpu.work import Work, digits, prepare, with_labels

REGION = "Torch-Compiled Region"  # what the profiler calls a call of a compiled network
PAIRS = 12  # of four members; each was once a graph of its own


def compiles_run_after_run(sheet: Sheet) -> None:
    """Check 7: steps of combined with all its pairs, and then of kd, whose student and teacher are to be compiled."""
    combined, kd = (
        prepare(digits(sheet.device), with_labels(name), build=few_layers, compile="default")
        for name in ("combined", "kd")
    )
    for name, work, steps in (("combined", combined, 4 * PAIRS), ("kd", kd, 2)):
        counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        work.losses(steps)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"] - counted
        sheet.note(**{f"graphs_{name}": graphs, f"calls_{name}": compiled_calls(work)})
    # The clean teachers, the pair's teachers and members, the student; and the teacher, the student.
    sheet.expect(sheet.measured["calls_kd"] == 2, f"of kd's 2 networks {sheet.measured['calls_kd']} are compiled")
    sheet.expect(sheet.measured["calls_combined"] >= 9, f"of combined's 9 calls {sheet.measured['calls_combined']} are")
    sheet.expect(sheet.measured["graphs_combined"] <= 8, "a graph for each member or pair, not for all of them")


def compiled_calls(work: Work) -> int:
    """How many networks a step calls in their compiled form."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work.losses(1)
    return sum(event.count for event in recorded.key_averages() if event.key.startswith(REGION))


def records_graphs(sheet: Sheet) -> None:
    """Check 8: steps of combined in two parts, with a mean of the weights, as CUDA graphs and eagerly."""
    steps = 6 if sheet.small else 60
    recipe = {"accumulate": 2, "average": "ema", "lr": 0.01}
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
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))
