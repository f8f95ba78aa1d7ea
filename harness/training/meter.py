"""How fast steps are, and how much of a GPU they take: those of the training itself, not of what happens around it."""

from __future__ import annotations

import time

import torch


class Meter:
    """Measures the steps of one epoch after the other.

    The first step of a process starts the device, tries algorithms and compiles: where others follow, it does not count.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.warm = False

    def begin(self, step: int) -> None:
        """From here on, where step number `step` is the next."""
        self.first, self.start = step, time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def after(self, step: int, last: bool) -> None:
        """A step was taken and number `step` is the next, unless it was the epoch's last."""
        if not self.warm and not last:
            self.warm = True
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # once in a process
            self.begin(step)

    def steps_per_s(self, step: int) -> float:
        """Up to step number `step`; the device has to have done them."""
        return (step - self.first) / (time.perf_counter() - self.start)

    def peak_bytes(self) -> int:
        """The most that tensors of the steps held, or what they hold now with all that CUDA graphs keep to themselves
        between replays; 0 on a CPU.
        """
        if self.device.type != "cuda":
            return 0
        if torch.cuda.get_allocator_backend() != "native":  # another one does not say what graphs keep
            return torch.cuda.max_memory_allocated(self.device)
        kept = sum(
            segment["total_size"] - segment["allocated_size"]
            for segment in torch.cuda.memory_snapshot()
            if tuple(segment["segment_pool_id"]) != (0, 0)
        )
        # Not both: while a graph is captured, what it will keep counts as held.
        held = torch.cuda.memory_allocated(self.device) + kept
        return max(torch.cuda.max_memory_allocated(self.device), held)
