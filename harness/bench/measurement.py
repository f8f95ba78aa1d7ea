"""How a subject is measured: its time, memory, operations, and what the profiler sees of a step."""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.callback import CallbackArgs, callback_handler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from harness.bench.subjects import Options, Subject
from harness.config import ConfigError
from harness.runtime import memory
from harness.runtime.console import Console
from harness.training import arithmetic
from methods.perturbation import Perturbed

PRODUCTS = {"cpu": 2048, "cuda": 8192}  # side of the square matrices whose product shows the device's peak
# Of warming up: rounds over what a method may draw without anything new, after which nothing is expected to come, and
# rounds after which one no longer waits for that. What becomes a CUDA graph is run once, then captured, then replayed.
QUIET, MOST = 2, 8


def clock(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds that an action takes, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Compilations:
    """How many graphs torch.compile made, or recorded as CUDA graphs."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, about: CallbackArgs) -> None:
        self.count += 1


@contextmanager
def watch_compilations() -> Iterator[Compilations]:
    found = Compilations()
    callback_handler.register_start_callback(found.add)
    try:
        yield found
    finally:
        callback_handler.remove_start_callback(found.add)


def count_graphs(compilations: Compilations, subjects: Iterable[Subject]) -> int:
    """Those that were compiled or recorded, and those that the subjects' trainers captured."""
    captures = [subject.trainer.capture for subject in subjects]
    return compilations.count + sum(len(capture.graphs) for capture in captures if capture)


def warm_up(subject: Subject, compilations: Compilations) -> None:
    """Take steps until nothing is allocated, timed, compiled or captured for the first time any more, at most MOST rounds."""
    known, quiet = count_graphs(compilations, [subject]), 0
    for _ in range(MOST):
        visit(subject)
        before, known = known, count_graphs(compilations, [subject])
        quiet = quiet + 1 if known == before else 0
        if quiet == QUIET:
            break


def visit(subject: Subject) -> None:
    """A step; of a method that draws pairs of members, one with each pair where that may have a graph of its own."""
    method, trainer = subject.trainer.method, subject.trainer
    graphs = trainer.recipe["compile"] or trainer.capture
    if not (graphs and isinstance(method, Perturbed)):
        return subject.step()
    for pair in itertools.permutations(range(len(trainer.teachers)), 2):
        method.pair = list(pair)
        subject.step()
    method.pair = None


def take_turns(subjects: list[Subject], options: Options, device: torch.device, console: Console) -> None:
    """Time every subject once a round, in an order that turns from round to round."""

    said = time.monotonic()
    for turn in range(options.rounds):
        shift = turn % len(subjects)
        for subject in subjects[shift:] + subjects[:shift]:
            subject.seconds.append(clock(functools.partial(subject.step, options.steps), device) / options.steps)
            subject.pipeline.append(clock(functools.partial(next, subject.batches), device))
        if time.monotonic() - said > 10:
            console.say(f"round {turn + 1} of {options.rounds}")
            said = time.monotonic()


def measure_memory(subject: Subject, device: torch.device) -> int:
    """Bytes that a step needs beyond what is held before it; on a GPU without the pool of recorded CUDA graphs."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        subject.step()
        return torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux":
        raise ConfigError("the memory of a step on the CPU is read from /proc, which only Linux has")
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory.status("VmRSS")
    subject.step()
    return memory.status("VmHWM") - before


def graphs_memory(device: torch.device) -> int:
    """Bytes of a GPU that CUDA graphs keep for themselves between their replays."""
    if device.type != "cuda":
        return 0
    segments = torch.cuda.memory_snapshot()
    return sum(segment["total_size"] for segment in segments if tuple(segment["segment_pool_id"]) != (0, 0))


class FlopCounter(TorchDispatchMode):
    """Adds up floating-point operations by operator (torch's own counter minds modules, which input gradients upset)."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(subject: Subject) -> int:
    """Floating-point operations of a step, counted an operator at a time, as no compiled or captured step runs them."""
    trainer, capture = subject.trainer, subject.trainer.capture
    trainer.capture = None
    with torch.compiler.set_stance("force_eager"), FlopCounter() as counter:
        subject.step()
    trainer.capture = capture
    return counter.total


def measure_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of a large square matrix product as steps in a precision would do it; the best of several."""
    side = PRODUCTS[device.type]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(side, side, device=device, dtype=dtype)
    with arithmetic.of_steps(precision):
        return 2 * side**3 / min(clock(lambda: a @ a, device) for _ in range(6))
