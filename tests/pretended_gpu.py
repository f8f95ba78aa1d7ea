"""A GPU that is only pretended: tensors that say cuda:0, compute on the CPU, and tell what a real one would wait for.

`with pretending() as gpu:` runs a body in which `device="cuda"` works without a GPU. Tensors of the two devices do not
mix, as on CUDA, and `gpu.events` has everything that a device would be asked, each with the line of this project that
asked:

    launch      an operator that runs at least one kernel (views and allocations run none)
    send        a copy to the device that nobody waits for: from pinned memory, non_blocking
    to device   any other copy to the device: the host waits for it
    to host     an array or a number is looked at: the host waits for all that was launched
    wait        an operator the shape of whose result depends on values, or a synchronisation

A CUDA graph repeats the operators that it captured, on the same tensors, and is one launch; what a graph cannot capture
is an error in one.

Torch is afterwards as it was. What this cannot show: time, memory, streams, what cuDNN and torch.compile make of a step.
Autocast follows the CPU's list of operators, and inference mode is no_grad.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from tests.pretended_graph import PretendedGraph
from tests.pretended_tensor import CUDA, OnGPU, OwnFunctions, freeze, is_cuda, is_held, tensors_in, unwrap

PROJECT = Path(__file__).parents[1]
PRETENCE = __file__.removesuffix("gpu.py")  # how the names of these files begin
CPU = torch.device("cpu")
MEMORY, PEAK = 80 << 30, 1 << 30  # bytes that the device has, and says that were allocated at most

LAUNCH, SEND, TO_DEVICE, TO_HOST, WAIT = "launch", "send", "to device", "to host", "wait"
COPIES = ("_to_copy", "copy_", "_foreach_copy_")  # from one device to the other
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")
LOOKS = ("_local_scalar_dense", "equal")  # the result is no tensor
COUNTS = (
    *("nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive"),
    *("multinomial", "_linalg_check_errors"),  # no shapes, but they look whether their inputs are right
)
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
FREE = (*LOOKS, *ALLOCATIONS, "_unsafe_view", "is_same_size")  # no kernel, and by their schema no view


@dataclass(frozen=True)
class Event:
    """What a device was asked: of which kind, by which operator, from which line of the project."""

    kind: str
    operator: str
    line: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.operator} at {self.line}"


def waiting(events: Sequence[Event]) -> list[Event]:
    """Those of the events for which the host waits."""
    return [event for event in events if event.kind in (TO_DEVICE, TO_HOST, WAIT)]


def launches(events: Sequence[Event]) -> Counter[str]:
    """How many operators among them ran a kernel, by name."""
    return Counter(event.operator for event in events if event.kind == LAUNCH)


class PretendedGPU(TorchDispatchMode):
    """Computes every operator on the CPU and keeps what a GPU would have been asked in `events`."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.graph: PretendedGraph | None = None  # which captures what it is asked

    def note(self, kind: str, operator: str) -> None:
        """Raises RuntimeError where a graph cannot capture it."""
        event = Event(kind, operator, asking_line())
        if self.graph is None:
            self.events.append(event)
        elif kind != LAUNCH:
            self.graph.broken = True
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({event})")

    def look(self, operator: str) -> None:
        """Something is copied to the host."""
        self.note(TO_HOST, operator)

    def replay(self) -> None:
        """A graph is launched."""
        self.note(LAUNCH, "graph")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [*tensors_in(args), *tensors_in(kwargs.values())]
        held, created = any(map(is_held, tensors)), is_cuda(kwargs.get("device"))
        if not held and not created:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        self.judge(func, name, tensors, args, kwargs)
        run, take = (func, unwrap) if self.graph is None else (functools.partial(self.graph.call, func), freeze)
        on_cpu = {name: take(value) for name, value in kwargs.items()} | ({"device": CPU} if created else {})
        found = run(*take(args), **on_cpu)
        if tensors and name in ("copy_", "_foreach_copy_") and not is_held(tensors[0]):
            return args[0]
        found = self.wrap(found)
        return return_and_correct_aliasing(func, args, kwargs, found) if held else found

    def wrap(self, found: Any) -> Any:
        """Tensors, also those in lists and tuples, as tensors of this device."""
        if isinstance(found, list | tuple):
            return type(found)(map(self.wrap, found))
        return OnGPU(found, self) if isinstance(found, Tensor) else found

    def judge(self, func: Any, name: str, tensors: list[Tensor], args: Any, kwargs: Any) -> None:
        """Note what an operator would ask of a GPU. Raises RuntimeError where it would refuse what it is given."""
        foreign = [tensor for tensor in tensors if not is_held(tensor)]
        if name in COPIES and foreign:
            self.note(direction(name, tensors[0], foreign[0], args, kwargs), name)
            return
        if name in INDEXING and is_held(args[0]):
            foreign = self.judge_indices(name, *args[:3])
        refuse_foreign(name, tensors, foreign, kwargs.get("generator"))
        counts = name in COUNTS or (name == "repeat_interleave" and kwargs.get("output_size") is None)
        if name in LOOKS or counts:
            self.note(TO_HOST if name in LOOKS else WAIT, name)
        if not func.is_view and name not in FREE:
            self.note(LAUNCH, name)

    def judge_indices(
        self, name: str, indexed: Tensor, indices: list[Tensor | None], values: Tensor | None = None
    ) -> list[Tensor]:
        """The values that lie on the CPU. Indices may, and are copied; a mask is counted, but not to fill in a number."""
        given = [index for index in indices if index is not None]
        foreign = [] if values is None or is_held(values) else [values]
        fills = bool(foreign) and values.numel() == 1
        if not fills and any(index.dtype in (torch.bool, torch.uint8) for index in given):
            self.note(WAIT, f"{name} by a mask")
        if not all(map(is_held, given)):
            self.note(TO_DEVICE, f"{name} by an index on the CPU")
        return foreign


def direction(name: str, target: Tensor, foreign: Tensor, args: Any, kwargs: Any) -> str:
    """Where a copy between the devices goes; `target` is what it is called on, `foreign` lies on the CPU."""
    if name != "_to_copy" and not is_held(target):
        return TO_HOST
    non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
    return SEND if non_blocking and foreign.is_pinned() else TO_DEVICE


def refuse_foreign(name: str, tensors: list[Tensor], foreign: list[Tensor], generator: torch.Generator | None) -> None:
    """Raise RuntimeError where an operator of the GPU is given what lies on the CPU.

    A number that lies there is handed to the kernel; it cannot be written to.
    """
    numbers = not any(tensor.dim() for tensor in foreign) and name != "stack"
    written = name.endswith("_") and not is_held(tensors[0])
    found = [str(tuple(tensor.shape)) for tensor in foreign] if not numbers or written else []
    if generator is not None:
        found.append("a generator")
    if found:
        raise RuntimeError(f"{name}: expected all on one device, but found cuda:0 and, on cpu, {', '.join(found)}")


def asking_line() -> str:
    """The innermost line of the project that runs, what pretends aside."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(f"{PROJECT}/") and not name.startswith(PRETENCE) and "site-packages" not in name:
            return f"{name[len(str(PROJECT)) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "nowhere"


# What torch is told -------------------------------------------------------------------------------------------

PROPERTIES = SimpleNamespace(
    name="Pretended GPU", total_memory=MEMORY, major=9, minor=0, multi_processor_count=132, uuid="pretended"
)
ANSWERS: dict[str, Any] = {
    **{"_lazy_init": None, "is_available": True, "device_count": 1, "current_device": 0, "set_device": None},
    **{"get_device_name": PROPERTIES.name, "get_device_properties": PROPERTIES, "get_device_capability": (9, 0)},
    **{"mem_get_info": (MEMORY, MEMORY), "memory_allocated": 0, "max_memory_allocated": PEAK, "empty_cache": None},
    **{"memory_reserved": 0, "max_memory_reserved": PEAK, "reset_peak_memory_stats": None},
    **{"memory_snapshot": [], "graph_pool_handle": (0, 1), "get_allocator_backend": "native"},
    **{"Stream": SimpleNamespace(wait_stream=lambda other: None, device_index=0), "current_stream": None},
    **{"stream": contextlib.nullcontext()},
    **{"manual_seed": None, "manual_seed_all": None, "set_rng_state": None},
    **{"get_rng_state": torch.zeros(16, dtype=torch.uint8)},
}
FLAGS = (  # which are set for a GPU
    *((torch.backends.cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")),
    (torch.backends.cuda.matmul, "allow_tf32"),
)
ACCELERATOR: dict[str, Any] = {
    **{"is_available": True, "current_accelerator": CUDA, "device_count": 1, "current_device_index": 0},
    **{"set_device_index": None, "current_stream": SimpleNamespace(is_capturing=lambda: False)},
}


def ask_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """One that is told a kind of device: what is said of GPUs holds for the CPU, which computes."""

    @functools.wraps(function)
    def ask(*arguments: Any, **options: Any) -> Any:
        return function(*("cpu" if argument == "cuda" else argument for argument in arguments), **options)

    return ask


def infer_without_gradients(self: torch.inference_mode) -> None:
    """Tensors that are wrapped cannot be inference tensors."""
    self._inference_mode_context = torch.no_grad() if self.mode else contextlib.nullcontext()
    self._inference_mode_context.__enter__()


def pin(tensor: Tensor, device: str | None = None) -> Tensor:
    """Tensor.pin_memory."""
    if is_held(tensor):
        raise RuntimeError("cannot pin a tensor of cuda:0; only dense CPU tensors can be pinned")
    pinned = tensor.clone()
    pinned.lies_pinned = True
    return pinned


@contextlib.contextmanager
def capturing(graph: PretendedGraph, **options: Any) -> Iterator[None]:
    """torch.cuda.graph."""
    graph.capture_begin()
    try:
        yield
    finally:
        graph.capture_end()


def answer_all(module: Any, answers: dict[str, Any]) -> Iterator[contextlib.AbstractContextManager]:
    for name, answer in answers.items():
        yield mock.patch.object(module, name, lambda *args, answer=answer, **options: answer)


def group_tensors(real: Callable[..., dict]) -> Callable[..., dict]:
    """Optimizer._group_tensors_by_device_and_dtype, whose C++ sees the CPU below."""

    def group(lists: Any, with_indices: bool = False) -> dict:
        held = any(is_held(tensor) for tensors in lists for tensor in tensors)
        return {
            (CUDA if held else device, dtype): found for (device, dtype), found in real(lists, with_indices).items()
        }

    return group


@contextlib.contextmanager
def pretending() -> Iterator[PretendedGPU]:
    """A machine with one GPU, until the body ends."""
    gpu = PretendedGPU()
    patches = [
        *answer_all(torch.cuda, ANSWERS),
        *answer_all(torch.accelerator, ACCELERATOR),
        mock.patch.object(torch.cuda, "synchronize", lambda device=None: gpu.note(WAIT, "synchronize")),
        mock.patch.object(torch.cuda, "CUDAGraph", functools.partial(PretendedGraph, gpu)),
        mock.patch.object(torch.cuda, "graph", capturing),
        # A GPU has random numbers of its own, which here are the host's.
        mock.patch("harness.training.capture.drawn_on_host", lambda: None),
        mock.patch.object(torch.autocast, "__init__", ask_cpu(torch.autocast.__init__)),
        mock.patch.object(torch, "is_autocast_enabled", ask_cpu(torch.is_autocast_enabled)),
        mock.patch.object(torch, "get_autocast_dtype", ask_cpu(torch.get_autocast_dtype)),
        mock.patch.object(torch.inference_mode, "__enter__", infer_without_gradients),
        mock.patch.object(
            torch.optim.Optimizer,
            "_group_tensors_by_device_and_dtype",
            group_tensors(torch.optim.Optimizer._group_tensors_by_device_and_dtype),
        ),
        mock.patch.object(Tensor, "pin_memory", pin),
        mock.patch.object(Tensor, "is_pinned", lambda tensor, device=None: hasattr(tensor, "lies_pinned")),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        # torch.tensor makes a tensor of the CPU and copies it.
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        # A parameter that is moved becomes one of another class.
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        torch.__future__.set_swap_module_params_on_conversion(True)
        for place, name in FLAGS:
            stack.callback(setattr, place, name, getattr(place, name))
        stack.enter_context(OwnFunctions())
        stack.enter_context(gpu)
        yield gpu
