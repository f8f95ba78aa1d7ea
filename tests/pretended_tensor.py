"""Tensors of the pretended GPU: what they hold lies on the CPU, as C++ knows, and Python is told cuda:0.

What torch would decide in C++, by the device, is decided here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda:0")


class OnGPU(Tensor):
    """A tensor of `gpu` that stands for a plain one."""

    @staticmethod
    def __new__(cls, inner: Tensor, gpu: Any):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return Tensor._make_wrapper_subclass(cls, inner.size(), **layout)

    def __init__(self, inner: Tensor, gpu: Any):
        self.inner, self.gpu = inner, gpu

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Outside `pretending`, or in a thread of its own: the device is the same."""
        gpu = next(tensor.gpu for tensor in tensors_in([*args, *(kwargs or {}).values()]) if is_held(tensor))
        return gpu.__torch_dispatch__(func, types, args, kwargs)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self, **options: Any) -> str:
        return f"OnGPU({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> OnGPU:
        if id(self) not in memo:
            with torch.no_grad():
                copied = self.clone(memory_format=torch.preserve_format)
            is_parameter = isinstance(self, nn.Parameter)
            copied = (
                nn.Parameter(copied, self.requires_grad) if is_parameter else copied.requires_grad_(self.requires_grad)
            )
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.cpu().detach().__reduce_ex__(protocol)


class OwnFunctions(TorchFunctionMode):
    """Calls the functions of OWN in the place of torch's."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": CUDA}  # without its number C++ would ask the driver
        if func in MOVES or (args and is_held(args[0])):
            func = OWN.get(func, func)
        return func(*args, **kwargs)


def move(tensor: Tensor, *args: Any, copy: bool = False, **options: Any) -> Tensor:
    """Tensor.to."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **options)
    if is_held(tensor):
        tensor = tensor if device is None or is_cuda(device) else fetch(tensor)
        device = None
    elif is_cuda(device):
        device = CUDA
    return Tensor.to(tensor, device, dtype, non_blocking, copy, memory_format=memory_format)


def fetch(tensor: OnGPU, *args: Any, **options: Any) -> Tensor:
    """Tensor.cpu. A graph that leads to the tensor ends here."""
    tensor.gpu.look("cpu")
    copied = tensor.inner.detach().clone(memory_format=torch.preserve_format)
    return copied.requires_grad_(tensor.requires_grad)


def make_like(tensor: OnGPU, data: Any, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """Tensor.new_tensor."""
    return torch.tensor(data, dtype=dtype or tensor.dtype, **{"device": CUDA, **options})


def refuse_numpy(tensor: OnGPU, *args: Any, **options: Any) -> None:
    raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")


def one_hot(labels: OnGPU, num_classes: int = -1) -> Tensor:
    """F.one_hot, which on the CPU looks at the labels."""
    count = num_classes if num_classes >= 0 else int(labels.max()) + 1
    zeros = torch.zeros(*labels.shape, count, dtype=torch.long, device=CUDA)
    return zeros.scatter_(-1, labels.unsqueeze(-1), 1)


OWN: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.to: move,
    Tensor.cpu: fetch,
    Tensor.cuda: lambda tensor, *args, **options: move(tensor, CUDA),
    Tensor.new_tensor: make_like,
    Tensor.tolist: lambda tensor: fetch(tensor).tolist(),
    Tensor.numpy: refuse_numpy,
    Tensor.__array__: refuse_numpy,
    F.one_hot: one_hot,
}
MOVES = (Tensor.to, Tensor.cuda)  # of tensors of the CPU too


def is_held(value: Any) -> bool:
    return isinstance(value, OnGPU)


def is_cuda(device: torch.device | str | int | None) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def unwrap(value: Any) -> Any:
    """Plain tensors in the place of those of the GPU, also in lists and tuples."""
    if isinstance(value, list | tuple):
        return type(value)(map(unwrap, value))
    return value.inner if is_held(value) else value


def freeze(value: Any) -> Any:
    """The same, with copies of what lies on the CPU: it is handed over as it is now."""
    if isinstance(value, list | tuple):
        return type(value)(map(freeze, value))
    return value.clone() if isinstance(value, Tensor) and not is_held(value) else unwrap(value)


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """What an operator is given: tensors, and lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
