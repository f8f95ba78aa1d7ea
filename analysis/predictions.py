"""Stored predictions of runs: per-image correctness and likelihood, and what two arms disagree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import metrics, resampling
from analysis.pairing import pair
from analysis.records import AnalysisError
from analysis.words import probability

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables import Table


class Predictions(NamedTuple):
    """logits [N, K] float32 and labels [N] of one run's test split."""

    logits: NDArray
    labels: NDArray

    @property
    def log_probabilities(self) -> NDArray:
        """[N, K], in float64."""
        z = self.logits.astype(float)
        z = z - z.max(1, keepdims=True)
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    @property
    def correct(self) -> NDArray:
        """[N] bool."""
        return self.logits.argmax(1) == self.labels

    @property
    def nll(self) -> NDArray:
        """[N], in nats."""
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]

    @property
    def confidence(self) -> NDArray:
        """[N], the largest probability."""
        return np.exp(self.log_probabilities.max(1))


def read(directory: str | Path, split: str = "test") -> Predictions:
    """The predictions of a run. Raises AnalysisError where the file is missing or damaged."""
    path = Path(directory) / "predictions.npz"
    try:
        with np.load(path) as file:
            return Predictions(file[f"{split}_logits"].astype(np.float32), file[f"{split}_labels"])
    except FileNotFoundError as error:
        raise AnalysisError(f"no stored predictions: {path}") from error
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise AnalysisError(f"damaged predictions: {path} ({error})") from error


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
    found = [[read(directories[run]) for run in pairs.runs[arm]] for arm in (variant, reference)]
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


def tables(c: ImageComparison, most: int = 15) -> list[Table]:
    """Every pair of runs and both layers of uncertainty; then the images on which the arms differ most."""
    from analysis.tables import Table

    acc, nll = metrics.metric("acc"), metrics.metric("nll")
    first = Table(
        f"{c.variant} - {c.reference}, image by image",
        ["teacher set, seed", f"only {c.variant} right", f"only {c.reference} right", "McNemar p",
         "ACC % [95 % CI, images]", "NLL [95 % CI, images]"], [], [],
    )  # fmt: skip
    for i, (number, seed) in enumerate(c.keys):
        a, b = c.correct_variant[i], c.correct_reference[i]
        test = resampling.mcnemar(a, b)
        intervals = [
            resampling.images(a.astype(float) - b),
            resampling.images(c.nll_variant[i] - c.nll_reference[i]),
        ]
        first.add(
            [f"{number}, {seed}", str(test.only_first), str(test.only_second), probability(test.p),
             *(_interval(v, m) for v, m in zip(intervals, (acc, nll), strict=True))],
            c.runs[2 * i : 2 * i + 2],
        )  # fmt: skip
    both = [
        resampling.crossed(c.correct_variant.astype(float) - c.correct_reference),
        resampling.crossed(c.nll_variant - c.nll_reference),
    ]
    first.add(
        ["all, crossed", "", "", "", *(_interval(v, m) for v, m in zip(both, (acc, nll), strict=True))],
        c.runs,
    )
    first.notes.append(
        "Each row is a claim about two trained models on new images; the last resamples runs and "
        "images, crossed. "
        + ("With fewer than 10 runs its interval is too narrow. " if len(c.keys) < 10 else "")
        + "McNemar's p are not adjusted."
    )
    a, b = c.correct_variant.sum(0), c.correct_reference.sum(0)
    order = np.argsort(-np.abs(a - b), kind="stable")[:most]
    second = Table(
        f"Images on which {c.variant} and {c.reference} disagree most",
        ["test image", "label", f"{c.variant} right", f"{c.reference} right"], [], [],
    )  # fmt: skip
    for i in order:
        if a[i] != b[i]:
            second.add([str(i), str(c.labels[i]), f"{a[i]}/{len(c.keys)}", f"{b[i]}/{len(c.keys)}"], c.runs)
    disagreeing = (c.correct_variant != c.correct_reference).mean()
    second.notes.append(
        f"In a pair of runs the two disagree in correctness on {100 * disagreeing:.2f} % of "
        f"{len(c.labels)} images; "
        f"{int((a > b).sum())} images favour {c.variant}, {int((b > a).sum())} favour {c.reference}."
    )
    return [first, second]


def _interval(value: resampling.Interval, m: metrics.Metric) -> str:
    return f"{m.text(value.mean, True)} [{m.text(value.low, True)}, {m.text(value.high, True)}]"
