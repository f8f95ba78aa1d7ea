"""Which GPUs the processes of this machine may use, by which names, and how much memory these have left.

The one place that knows CUDA's rules for names. CUDA_VISIBLE_DEVICES lists numbers, UUIDs (GPU-..., also their first
characters) or MIG devices (MIG-...), and ends at the first entry that is none: -1, nothing and SLURM's NoDevFiles mean
no GPU. nvidia-smi counts by PCI bus; CUDA begins with the fastest GPU unless CUDA_DEVICE_ORDER=PCI_BUS_ID. It is
nvidia-smi that is asked: CUDA would take memory on every GPU that it looks at.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = Path("/dev")
KINDS = {kind: operator.methodcaller("startswith", kind) for kind in ("GPU-", "MIG-")}  # numbers aside
LISTED = re.compile(r"GPU (?P<index>\d+): (?P<model>.+)|\s+MIG \S+\s+Device\s+(?P<part>\d+):")
UUID = re.compile(r"\(UUID: (\S+)\)")
MIB = re.compile(r"(\d+) MiB")


@dataclass(frozen=True)
class Gpu:
    """A GPU, or with `part` a MIG device of it: nvidia-smi's number, the GPU's UUID, and the name of its own."""

    index: int
    model: str
    uuid: str
    part: int | None
    name: str


def visible() -> list[str]:
    """The GPUs that a process started here may use, each by a name for its CUDA_VISIBLE_DEVICES; none: only the CPU."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        return parse(chosen)
    found = listed()
    if found is None:  # containers do not always have nvidia-smi
        return [str(k) for k in range(sum(1 for file in DEVICES.glob("nvidia*") if file.name[6:].isdecimal()))]
    split = {gpu.uuid for gpu in found if gpu.part is not None}  # GPUs that can only be used by their MIG devices
    return [gpu.name for gpu in found if gpu.part is not None or gpu.uuid not in split]


def numbered(k: int) -> str | None:
    """The name of the GPU that a process started here calls cuda:k; None where it sees no such."""
    names = visible()
    if k >= len(names):
        return None
    # Where nothing is chosen CUDA counts, in an order of its own; MIG devices have no numbers.
    return names[k] if VISIBLE in os.environ or names[k].startswith("MIG-") else str(k)


def parse(chosen: str) -> list[str]:
    """The GPUs of a CUDA_VISIBLE_DEVICES, as CUDA reads it."""
    entries = [name.strip() for name in chosen.split(",")]
    names = [*itertools.takewhile(KINDS.get(entries[0][:4], str.isdecimal), entries)]
    return names if len(set(names)) == len(names) else []  # CUDA takes a name given twice for a mistake, and shows none


def free_bytes(names: Iterable[str]) -> dict[str, int]:
    """Bytes that are free on GPUs, by their names; without those of which nvidia-smi does not say, or not which it is."""
    found = listed() or []
    try:
        free = {key: count for key, count in read_free(ask("-q", "-x"))} if found else {}
    except ElementTree.ParseError:
        free = {}
    meant = {name: identify(name, found) for name in names}
    return {name: free[gpu.uuid, gpu.part] for name, gpu in meant.items() if gpu and (gpu.uuid, gpu.part) in free}


def identify(name: str, found: list[Gpu]) -> Gpu | None:
    """The listed GPU that a name of CUDA's means; None where that cannot be told."""
    if not name.isdecimal():
        fitting = [gpu for gpu in found if gpu.name.startswith(name)]
    elif os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({gpu.model for gpu in found}) == 1:
        fitting = [gpu for gpu in found if gpu.index == int(name) and gpu.part is None]
    else:  # unlike GPUs, and CUDA has an order of its own
        fitting = []
    return fitting[0] if len(fitting) == 1 else None


def listed() -> list[Gpu] | None:
    """GPUs and their MIG devices, as `nvidia-smi -L` lists them; None where it does not answer."""
    said, found = ask("-L"), []
    if said is None:
        return None
    for line in said.splitlines():
        match, uuid = LISTED.match(line), UUID.search(line)
        if match is None or uuid is None:
            continue
        if match["part"] is None:
            found.append(Gpu(int(match["index"]), match["model"][: -len(uuid[0])].strip(), uuid[1], None, uuid[1]))
        else:
            gpu = found[-1]
            found.append(Gpu(gpu.index, gpu.model, gpu.uuid, int(match["part"]), uuid[1]))
    return found


def read_free(said: str | None) -> Iterable[tuple[tuple[str, int | None], int]]:
    """UUID of each GPU, which of its MIG devices or None for the whole, and free bytes, from `nvidia-smi -q -x`."""
    for gpu in ElementTree.fromstring(said or "<none/>").iter("gpu"):
        for part in (gpu, *gpu.iter("mig_device")):
            if count := MIB.fullmatch(part.findtext("fb_memory_usage/free", "").strip()):
                number = None if part is gpu else int(part.findtext("index", "-1"))
                yield (gpu.findtext("uuid", ""), number), int(count[1]) << 20


def ask(*arguments: str) -> str | None:
    """What nvidia-smi prints; None where it is missing or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def shared_fate() -> str:
    """How a message on a fault of a GPU goes on where NVIDIA's multi-process service runs; nothing where it does not."""
    pipe = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps") / "control"
    if not pipe.exists():
        return ""
    return "; under MPS a fault of any process ends all that share the GPU: the same command runs them again"
