"""Steps captured as CUDA graphs: what a step has a GPU do, once for each kind of step, to be replayed as one launch.

A GPU does most networks of this field faster than Python can tell it what to do: a step of hundreds of launches, each of
which costs the host more than the device, leaves the device idle. A replay has the same kernels, in the same order, on
the same numbers.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.method import Method

MOST = 100  # graphs: each takes some megabytes of the host and of the device beside what they share

Inputs = Sequence[Tensor | None]
Work = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class Captured:
    """A graph, and where it leaves the results."""

    graph: torch.cuda.CUDAGraph
    results: dict[str, Tensor]


class Capture:
    """Does a training's steps on a GPU. The first is done as ever, in which libraries choose their algorithms; from then
    on a kind of step is captured when it is met first, and replayed.

    Where that cannot be, it is said once, with the reason, and all steps are done as ever.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.begun = False
        self.graphs: dict[Hashable, Captured] = {}
        self.inputs: Inputs = ()  # which every graph reads
        self.failure: str | None = None

    def __call__(self, kind: Hashable, work: Work, inputs: Inputs) -> dict[str, Tensor]:
        """The results of `work(*inputs)`, tensors by name, in memory of their own.

        Work of one kind has to do the same to the same tensors each time, whatever its inputs hold: these are all that
        may change, their values alone. Raises RuntimeError where a GPU is left in a state that nobody can mend.
        """
        if not self.begun:
            return self.begin(work, inputs)
        if self.failure is None and kind not in self.graphs:
            self.capture(kind, work, inputs)
        if self.failure is not None:
            return work(*inputs)
        captured = self.graphs[kind]
        for place, value in zip(self.inputs, inputs, strict=True):
            if value is not None:
                place.copy_(value)
        captured.graph.replay()
        return {name: value.clone() for name, value in captured.results.items()}

    def begin(self, work: Work, inputs: Inputs) -> dict[str, Tensor]:
        """The first step."""
        self.begun, before = True, drawn_on_host()
        results = work(*inputs)
        if drawn_on_host() != before:
            self.give_up("the network draws random numbers on the host")
        return results

    def capture(self, kind: Hashable, work: Work, inputs: Inputs) -> None:
        """Capture a kind of step, without doing it."""
        if len(self.graphs) == MOST:
            return self.give_up(f"there are more than {MOST} kinds of them")
        if not self.graphs:
            self.inputs = [value if value is None else value.clone() for value in inputs]
            # Of this device, for all graphs: they use one memory after the other.
            self.stream, self.pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()  # the memory of steps is the graphs' from now on
        graph, error, ended = torch.cuda.CUDAGraph(), None, False
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            # Other threads (one that pins memory, say) may go on.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                results = work(*self.inputs)
            except RuntimeError as found:
                error = found
            try:
                graph.capture_end()
                ended = True
            except RuntimeError as found:
                error = error or found
        if error is None:
            self.graphs[kind] = Captured(graph, results)
            return
        self.give_up(str(error).strip().splitlines()[0])
        if not ended:
            self.mend()

    def give_up(self, why: str) -> None:
        """Capture nothing any more, and forget what there is."""
        self.failure = why
        self.graphs.clear()
        print(f"steps are not captured as CUDA graphs, and take longer on the host: {why}", file=sys.stderr)

    def mend(self) -> None:
        """End what a capture that could not end has begun: torch leaves its allocator and its random numbers as in one."""
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(self.stream.device_index, self.pool)
            torch._C._cuda_releasePool(self.stream.device_index, self.pool)
        place, graph = torch.zeros((), device=self.device), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self.stream):
                graph.capture_begin(capture_error_mode="thread_local")
                place.add_(1)
                graph.capture_end()
            torch.rand((), device=self.device)
        except RuntimeError as error:
            raise RuntimeError(
                f"CUDA error: a step could not be captured ({self.failure}), nor the GPU used after it"
            ) from error

    def describe(self) -> dict[str, Any]:
        """For a run's record: how many graphs there are, and why there are none."""
        return {"graphs": len(self.graphs), "failure": self.failure}


def is_capturable(method: Method) -> bool:
    """Whether a method's own class says so: a subclass may change what a step does, and has to say it again."""
    return vars(type(method)).get("capturable", False)


def drawn_on_host() -> tuple[Any, ...]:
    """The states of the streams that Python's layers may draw from: what is drawn there is drawn only once in a graph."""
    _, keys, place, *_ = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), keys.tobytes(), place
