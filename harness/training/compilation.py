"""torch.compile: compiled anew for each run, never given up in silence, and what stayed uncompiled is known."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

# All networks run through one code object, and torch gives up silently after 8 graphs of it. A step has few graphs (a
# student, a teacher, a member, with gradients and without), but a benchmark has those of all methods beside each other.
GRAPHS = 64


def begin(mode: str | None) -> None:
    """Forget what runs before this one compiled in this process, where this one compiles (mode is not None)."""
    if mode is not None:
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        torch._dynamo.config.recompile_limit = GRAPHS
        torch._dynamo.config.fail_on_recompile_limit_hit = True


def compile_network(network: nn.Module, mode: str | None) -> None:
    """Compile a network in place; `mode` is torch.compile's, None: not at all."""
    if mode is not None:
        network.compile(mode=mode)


def uncompiled(mode: str | None) -> contextlib.AbstractContextManager:
    """Networks run eagerly in here: evaluation has other shapes, for which few calls would compile graphs of their own."""
    return contextlib.nullcontext() if mode is None else torch.compiler.set_stance("force_eager")


def describe(mode: str | None) -> dict[str, Any] | None:
    """Of the run that began last, for its record: graphs that were compiled, and why some of it was not, by how often;
    None where nothing was to be.
    """
    if mode is None:
        return None
    counters = torch._dynamo.utils.counters
    reasons = {**counters["graph_break"], **counters["unimplemented"]}
    skipped = counters["inductor"].get("cudagraph_skips", 0)
    return {
        "mode": mode,
        "graphs": counters["stats"]["unique_graphs"],
        "not_compiled": {str(reason).strip().splitlines()[0]: count for reason, count in reasons.items()},
        "not_captured": skipped,  # graphs that were compiled and not recorded as CUDA graphs
    }
