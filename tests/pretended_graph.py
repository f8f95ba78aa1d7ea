"""CUDA graphs of the pretended GPU: the operators that were captured, run again on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.pretended_tensor import tensors_in


class PretendedGraph:
    """torch.cuda.CUDAGraph. Capturing leaves every tensor, and what layers draw from, as it was."""

    def __init__(self, gpu: Any, keep_graph: bool = False):
        self.gpu = gpu
        self.calls: list[tuple[Callable[..., Any], tuple, dict[str, Any], Any]] = []

    def capture_begin(self, **options: Any) -> None:
        self.broken = False
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # by address: what it held
        self.made: set[int] = set()  # addresses that came up in the graph itself
        self.random = torch.get_rng_state()
        self.gpu.graph = self

    def capture_end(self) -> None:
        """Raises RuntimeError where something in between could not be captured."""
        self.gpu.graph = None
        for storage, held in self.before.values():
            storage.copy_(held)
        torch.set_rng_state(self.random)
        del self.before, self.made, self.random
        if self.broken:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run an operator once, for the shapes of its results, and remember it."""
        for tensor in tensors_in([*args, *kwargs.values()]):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.made and storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = (storage, storage.clone())
        found = func(*args, **kwargs)
        for tensor in tensors_in([found]):
            if tensor.untyped_storage().data_ptr() not in self.before:
                self.made.add(tensor.untyped_storage().data_ptr())
        self.calls.append((func, args, kwargs, found))
        return found

    @torch.no_grad()
    def replay(self) -> None:
        self.gpu.replay()
        for func, args, kwargs, found in self.calls:
            again = func(*args, **kwargs)
            for place, value in zip(tensors_in([found]), tensors_in([again]), strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)
