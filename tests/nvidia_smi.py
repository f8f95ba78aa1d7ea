"""A pretended `nvidia-smi`: an executable that answers what the real one would say of some GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

H100, A30 = "NVIDIA H100 80GB HBM3", "NVIDIA A30"


@dataclass(frozen=True)
class Card:
    """A GPU with so many MiB free, or cut into MIG devices of so many."""

    free: int | str = 80_000
    model: str = H100
    parts: Sequence[int] = ()


def uuid(k: int) -> str:
    return f"GPU-{k}f0c3a5e-1b2d-4c3e-9f60-7a8b9c0d1e2f"


def mig(k: int, part: int) -> str:
    return f"MIG-{k}{part}94a9fa-5c1d-5d3e-8b5f-0123456789ab"


def listing(cards: Sequence[Card]) -> str:
    """What `nvidia-smi -L` says."""
    lines = []
    for k, card in enumerate(cards):
        lines.append(f"GPU {k}: {card.model} (UUID: {uuid(k)})")
        lines += [f"  MIG 1g.10gb     Device  {part}: (UUID: {mig(k, part)})" for part in range(len(card.parts))]
    return "".join(f"{line}\n" for line in lines)


def log(cards: Sequence[Card]) -> str:
    """What `nvidia-smi -q -x` says, as far as it is about memory; a GPU in parts has no number for the whole."""
    rows = []
    for k, card in enumerate(cards):
        parts = "".join(
            f"<mig_device>\n<index>{part}</index>\n<gpu_instance_id>{part + 7}</gpu_instance_id>\n"
            f"<compute_instance_id>0</compute_instance_id>\n{memory(free)}</mig_device>\n"
            for part, free in enumerate(card.parts)
        )
        rows.append(
            f'<gpu id="0000000{k}:07:00.0">\n<product_name>{card.model}</product_name>\n'
            f"<mig_devices>\n{parts or 'None'}\n</mig_devices>\n<uuid>{uuid(k)}</uuid>\n<minor_number>{k}</minor_number>\n"
            f"{memory('N/A' if card.parts else card.free)}"
            "<bar1_memory_usage>\n<free>131071 MiB</free>\n</bar1_memory_usage>\n</gpu>\n"
        )
    head = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
    return f"{head}<nvidia_smi_log>\n<attached_gpus>{len(cards)}</attached_gpus>\n{''.join(rows)}</nvidia_smi_log>\n"


def memory(free: int | str) -> str:
    shown = free if isinstance(free, str) else f"{free} MiB"
    return (
        "<fb_memory_usage>\n<total>81559 MiB</total>\n<reserved>600 MiB</reserved>\n<used>159 MiB</used>\n"
        f"<free>{shown}</free>\n</fb_memory_usage>\n"
    )


def install(folder: Path, *cards: Card) -> str:
    """Write the executable to a folder; returns the PATH on which it is found."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "listing").write_text(listing(cards))
    (folder / "log").write_text(log(cards))
    file = folder / "nvidia-smi"
    file.write_text(
        f'#!/bin/sh\ncase "$*" in\n-L) cat {folder}/listing ;;\n"-q -x") cat {folder}/log ;;\n*) exit 2 ;;\nesac\n'
    )
    file.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
