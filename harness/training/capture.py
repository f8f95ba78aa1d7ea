"""Steps captured as CUDA graphs: what a step has a GPU do, once for each kind of step, to be replayed as one launch.

A GPU does most networks of this field faster than Python can tell it what to do: a step of hundreds of launches, each of
which costs the host more than the device, leaves the device idle. A replay has the same kernels, in the same order, on
the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 64  # graphs; each takes some megabytes of the host and of the device beside what they share

Inputs = Sequence[Tensor | None]
Work = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class Captured:
    """A graph, and where it leaves the results."""

    graph: torch.cuda.CUDAGraph
    results: dict[str, Tensor]


class Capture:
    """Does a step's work on a GPU. A kind of step is done as ever when it is met first (libraries choose their algorithms
    then), captured when it is met again, and replayed from then on.

    Where capturing fails, as for want of memory, it is said once and nothing is captured any more.
    """

    def __init__(self) -> None:
        self.met: set[Hashable] = set()
        self.graphs: dict[Hashable, Captured] = {}
        self.inputs: Inputs = ()  # which every graph reads
        self.pool: tuple[int, int] | None = None  # of memory, which one graph after the other uses
        self.failure: str | None = None

    def __call__(self, kind: Hashable, work: Work, inputs: Inputs) -> dict[str, Tensor]:
        """The results of `work(*inputs)`, tensors by name, in memory of their own.

        Work of one kind has to do the same to the same tensors each time, whatever its inputs hold: these are all that
        may change, their values alone.
        """
        kind = (kind, tuple(value if value is None else value.shape for value in inputs))
        if kind not in self.graphs and not (self.may_capture(kind) and self.capture(kind, work, inputs)):
            return work(*inputs)
        captured = self.graphs[kind]
        for place, value in zip(self.inputs, inputs, strict=True):
            if value is not None:
                place.copy_(value)
        captured.graph.replay()
        return {name: value.clone() for name, value in captured.results.items()}

    def may_capture(self, kind: Hashable) -> bool:
        """Whether a kind of step was met before; from now on it was."""
        known = kind in self.met
        self.met.add(kind)
        return known and self.failure is None and len(self.graphs) < MOST

    def capture(self, kind: Hashable, work: Work, inputs: Inputs) -> bool:
        """Capture a kind of step, without doing it; whether that went well."""
        try:
            if not self.inputs:
                self.inputs = [value if value is None else value.clone() for value in inputs]
                self.pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads (one that pins memory, say) may go on.
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                results = work(*self.inputs)
        except RuntimeError as error:
            self.failure = str(error).strip().splitlines()[0]
            self.graphs.clear()
            print(f"steps are not captured as CUDA graphs, and take longer on the host: {self.failure}")
            return False
        self.graphs[kind] = Captured(graph, {name: value.detach() for name, value in results.items()})
        return True

    def describe(self) -> dict[str, object]:
        """For a run's record: how many graphs there are, and why there are none."""
        return {"graphs": len(self.graphs), "failure": self.failure}
