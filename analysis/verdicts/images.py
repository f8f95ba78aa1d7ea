"""Two arms image by image: which of the paired runs is right on which test image, and what other images would change."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.inference.crossed import standard_error
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.pairing import incomplete, pair
from analysis.records.predictions import read, size

if TYPE_CHECKING:
    import pandas as pd

    from analysis.verdicts.contrast import Contrast

OF_IMAGES = {"acc": "correct", "nll": "nll"}  # metrics that are means over images
MOST_BYTES = 2**31  # of predictions that are read for standard errors: a table must not take minutes


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

    def crossed(self, values: NDArray) -> NDArray:
        """Values [S, N] as [sets, seeds, N], in which order pairing has left them; sets that share no seed are one. A seed
        that lost a run with one teacher set is left out: its other runs are not independent of each other.
        """
        import pandas as pd

        left = incomplete(pd.DataFrame(self.keys, columns=["teacher_set", "seed"]))
        kept = [i for i, (_, seed) in enumerate(self.keys) if seed not in left]
        sets, seeds = (len({self.keys[i][j] for i in kept}) for j in (0, 1))
        return values[kept].reshape(sets if sets * seeds == len(kept) else 1, -1, values.shape[-1])


def compare_images(block: pd.DataFrame, variant: str, reference: str) -> ImageComparison:
    """Read the paired runs of two arms of one (data, model) block.

    Raises AnalysisError where they share no pair, or where the test images differ between runs.
    """
    pairs = pair(block, {variant: 1.0, reference: -1.0}, "acc").finished
    if not len(pairs.values):
        raise AnalysisError(f"{variant} and {reference} have no finished pair of runs in common")
    directories = places(block)
    if unknown := [run for arm in (variant, reference) for run in pairs.runs[arm] if run not in directories]:
        raise AnalysisError(f"{unknown[0]}: the table does not tell where its predictions are")
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


def places(runs: pd.DataFrame) -> dict[str, str]:
    """The directory of each run of which the table tells one; an export may have lost it."""
    told = zip(runs["run"], runs["directory"], strict=True) if "directory" in runs else ()
    return {run: directory for run, directory in told if isinstance(directory, str)}


def error_over_images(runs: pd.DataFrame, found: list[Contrast]) -> None:
    """Set the standard error over test images of each contrast whose runs have kept their predictions.

    The difference of an image is averaged over the runs first: what is left is how much other images would change. Left
    out where there are more predictions than MOST_BYTES.
    """
    directories = places(runs)
    arms = dict(zip(runs["run"], runs["arm"], strict=True))
    wanted = {run for c in found if c.metric in OF_IMAGES and not c.failed for run in c.runs}
    if sum(size(directories[run]) for run in wanted & directories.keys()) > MOST_BYTES:
        return
    known: dict[str, NDArray] = {}
    for c in found:
        if c.metric not in OF_IMAGES or c.failed or not c.runs:
            continue
        if not all(run in directories and size(directories[run]) for run in c.runs):
            continue
        try:
            for run in c.runs:
                if run not in known:
                    known[run] = np.asarray(getattr(read(directories[run], run), OF_IMAGES[c.metric]), float)
        except AnalysisError as error:
            warnings.warn(f"no standard error over test images: {error}", AnalysisWarning, stacklevel=3)
            continue
        if len({known[run].shape for run in c.runs}) == 1:
            by_arm = {arm: np.mean([known[run] for run in c.runs if arms[run] == arm], 0) for arm in c.weights}
            c.error_images = standard_error(sum(by_arm[arm] * weight for arm, weight in c.weights.items()))
