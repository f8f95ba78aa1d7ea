"""Two arms image by image: which of the paired runs is right on which test image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.records.errors import AnalysisError
from analysis.records.pairing import pair
from analysis.records.predictions import read

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ImageComparison:
    """Two arms image by image. Arrays are [S, N]: paired runs x test images."""

    variant: str
    reference: str
    keys: list[tuple[int, int]]  # (teacher set, seed) of each row
    labels: NDArray  # [N]
    correct_variant: NDArray
    correct_reference: NDArray
    nll_variant: NDArray
    nll_reference: NDArray
    runs: tuple[str, ...]


def compare_images(block: pd.DataFrame, variant: str, reference: str) -> ImageComparison:
    """Read the paired runs of two arms of one (data, model) block.

    Raises AnalysisError where they share no pair, or where the test images differ between runs.
    """
    pairs = pair(block, {variant: 1.0, reference: -1.0}, "acc")
    if not len(pairs.values):
        raise AnalysisError(f"{variant} and {reference} have no finished pair of runs in common")
    directories = block.set_index("run")["directory"]
    found = [[read(directories[run], run) for run in pairs.runs[arm]] for arm in (variant, reference)]
    labels = found[0][0].labels
    for side in found:
        for predictions in side:
            if not np.array_equal(predictions.labels, labels):
                raise AnalysisError("the runs were tested on different images: compare per image within one test split")
    return ImageComparison(
        variant,
        reference,
        [(int(s), int(seed)) for s, seed in pairs.values.index],
        labels,
        *(np.stack([p.correct for p in side]) for side in found),
        *(np.stack([p.nll for p in side]) for side in found),
        tuple(pairs.runs.to_numpy().ravel()),
    )
