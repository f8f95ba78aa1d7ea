"""What a run came to, as the fields of its record that do not depend on how it came to it."""

from __future__ import annotations

import statistics
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import streams
from harness.config.brought import modules
from harness.config.methods import method_defaults
from harness.evaluation.evaluation import count_flops
from harness.runtime import memory
from harness.store import provenance
from harness.store.identity import run_hash
from harness.store.record import VERSION
from harness.training import arithmetic
from harness.training.device import device_kind
from harness.training.state import Training
from harness.training.trainer import Trainer


def new_record(config: dict[str, Any], status: str, wall_s: float, error: dict[str, Any] | None) -> dict[str, Any]:
    """A record of a status, with no numbers yet."""
    return {
        "version": VERSION,
        "hash": run_hash(config),
        "status": status,
        "error": error,
        "config": config,
        **dict.fromkeys(("metrics", "diagnostics", "shift", "ood", "selection")),
        "notes": [],
        "files": {},
        "cost": {"wall_s": wall_s},
        "provenance": {
            "method_defaults": method_defaults(config["method"]["name"]),
            "streams": {purpose: streams.derive(config["seed"], purpose) for purpose in streams.PURPOSES},
        },
    }


def tell(error: Exception, status: str, directory: Path) -> dict[str, Any]:
    """A record's `error`: what went wrong, for a failure with its traceback, and where the log is."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": traceback.format_exc() if status == "failed" else None,
        "log": str((directory / "run.log").resolve()),
        "slurm_state": None,
    }


def describe_cost(training: Training, trainer: Trainer, network: nn.Module) -> dict[str, float]:
    """A record's `cost`, but for the wall time."""
    device, method, members = training.device, trainer.method, len(trainer.teachers)
    on_gpu = device.type == "cuda"
    return {
        "wall_s": 0.0,
        "device_s": training.seconds,
        "images_per_s": statistics.median(training.rates or [0.0]),
        "peak_memory_bytes": training.peak_bytes if on_gpu else memory.peak_of_this_process(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": count_flops(network, trainer.data.test.images[:1]),
        "epochs": training.step // trainer.steps_per_epoch,
        "step_passes": method.passes(members),
        "inference_passes": method.inference_passes(members),
    }


def describe_source(config: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The fields of a record's provenance that say by what a run was made."""
    source = provenance.describe(device_kind(device), torch.get_num_threads(), modules(config))
    return {**source, "gpu": arithmetic.describe(device)}


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
