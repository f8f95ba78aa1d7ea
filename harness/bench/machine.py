"""`python -m harness.bench.machine FILE`: what a figure was measured on, as JSON."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from harness.runtime import host
from harness.store import provenance
from harness.store.files import write_json
from harness.training import arithmetic


def describe() -> dict[str, Any]:
    """The card, its driver, the libraries, the cores; None for what is not here."""
    on_gpu = torch.cuda.is_available()
    card = torch.cuda.get_device_properties(0) if on_gpu else None
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "card": card.name if card else None,
        "card_memory_gib": round(card.total_memory / 2**30, 1) if card else None,
        "cards": torch.cuda.device_count(),
        "driver": arithmetic.read_driver() or ask_card("driver_version"),
        "compute_mode": ask_card("compute_mode"),
        "mps": shutil.which("nvidia-cuda-mps-control") is not None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": read_processor(),
        "cores": host.cores(),
        "code": provenance.revision(),
    }


def ask_card(what: str) -> str | None:
    """A property of the first card by its name in nvidia-smi; None where nobody says."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def read_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), describe(), 1)
