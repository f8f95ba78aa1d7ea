"""How exactly a device computes: TF32, algorithms chosen by timing, kernels that repeat themselves.

These are settings of the process. They are set in one place, for a training's steps and for what is computed between
them, and what they were is recorded. On a CPU none of them has an effect; there threads decide (see `threads.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Of a user's environment: no TF32 whatever a program says; less than float32 whatever a program says.
NO_TF32, LESS_ON_CPU = "NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE"
DRIVER = Path("/proc/driver/nvidia/version")


def prepare(deterministic: bool) -> None:
    """The settings outside of steps: exact float32, and no algorithm chosen by timing.

    deterministic: kernels that do not repeat themselves bit for bit are replaced by such as do, or refused by torch.
    """
    if deterministic:
        # cuBLAS reads it when it first meets a device; both of the values that are allowed repeat themselves.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    set_flags(tf32=False, by_timing=False)


@contextlib.contextmanager
def of_steps(precision: str) -> Iterator[None]:
    """The settings of training steps in a precision of `train.precision`: TF32 where that is it, and algorithms chosen
    by timing, since every step has the same shapes, unless they have to repeat themselves.
    """
    set_flags(tf32=precision == "tf32", by_timing=not torch.are_deterministic_algorithms_enabled())
    try:
        yield
    finally:
        set_flags(tf32=False, by_timing=False)


def set_flags(tf32: bool, by_timing: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = tf32  # linear layers
    torch.backends.cudnn.allow_tf32 = tf32  # convolutions
    torch.backends.cudnn.benchmark = by_timing


def keep_in(dtype: torch.dtype, network: nn.Module) -> None:
    """Keep a frozen network's weights as autocast would cast them anew in every pass, in place."""
    for layer in network.modules():
        if type(layer) in (nn.Conv2d, nn.Linear):
            layer.weight = nn.Parameter(layer.weight.to(dtype), requires_grad=False)


def name(device: torch.device, precision: str, devices: int = 1) -> str:
    """In words, what decides the last digits of a training in a precision of `train.precision`, on so many devices: two
    that differ here end apart, whatever else is the same.
    """
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
        where += ", deterministic" if torch.are_deterministic_algorithms_enabled() else ""
    else:
        count = torch.get_num_threads()
        where = f"cpu {torch.backends.cpu.get_cpu_capability()}, {count} thread{'s' if count > 1 else ''}"
    where = f"{devices} x {where}" if devices > 1 else where
    return f"{where}, {of_convolutions(device, precision)} convolutions, torch {torch.__version__}"


def of_convolutions(device: torch.device, precision: str) -> str:
    """The precision that a step's convolutions really have, which is that of `train.precision` where the device has it."""
    kept = device.type == "cuda" and (
        torch.cuda.get_device_capability(device) < (8, 0) or os.environ.get(NO_TF32) == "0"
    )
    if precision == "tf32" and (device.type == "cpu" or kept):
        return "float32"
    # oneDNN then computes in less than it is given; torch's own switch for that is in its defaults here.
    less = os.environ.get(LESS_ON_CPU, "").lower() if device.type == "cpu" else ""
    return f"{precision} as {less}" if less not in ("", "strict") else precision


def describe(device: torch.device) -> dict[str, Any] | None:
    """What besides the GPU's name decides the last digits of a result, for a record; None on a CPU."""
    if device.type != "cuda":
        return None
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": read_driver(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def read_driver() -> str | None:
    """The version of NVIDIA's driver, as the kernel module says it; None where it does not."""
    try:
        first = DRIVER.read_text().splitlines()[0]
    except OSError:
        return None
    return next((word for word in first.split() if word.replace(".", "").isdigit() and "." in word), None)
