"""Named random streams: each purpose of a run draws from its own, whatever the others draw.

A stream's seed depends on (seed, purpose, counters) alone. Two methods with the same seed so share initial weights,
order and augmentation, and a run resumes at any step without a generator's state having been saved.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PURPOSES = (
    *("init", "factors", "order", "augmentation", "randaugment", "cutout", "mixup"),
    *("perturbation", "layers"),
)


def derive(seed: int | str, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one purpose of one run, such as (3, "order", epoch)."""
    name = "/".join(map(str, (seed, purpose, *counters)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(seed: int | str, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator at the start of a stream."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, *counters))
