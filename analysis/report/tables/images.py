"""Tables of two arms image by image: each pair of runs, and the images on which they differ most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.inference import resampling
from analysis.inference.crossed import Effects, over_images
from analysis.records import metrics
from analysis.report.tables.table import Table
from analysis.verdicts.notation import probability

if TYPE_CHECKING:
    from analysis.verdicts.images import ImageComparison


def image_tables(c: ImageComparison, most: int = 15) -> list[Table]:
    """Every pair of runs and both layers of uncertainty; then the images on which the arms differ most."""
    acc, nll = metrics.metric("acc"), metrics.metric("nll")
    first = Table(
        f"{c.variant} - {c.reference}, image by image",
        ["teacher set, seed", f"only {c.variant} right", f"only {c.reference} right", "McNemar p",
         "ACC % [95 % CI, images]", "NLL [95 % CI, images]"],
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
        over_images(c.crossed(c.correct_variant.astype(float) - c.correct_reference)),
        over_images(c.crossed(c.nll_variant - c.nll_reference)),
    ]
    first.add(
        ["all, crossed", "", "", "", *(_interval(v, m) for v, m in zip(both, (acc, nll), strict=True))],
        c.runs,
    )
    first.notes.append(
        "Each row is a claim about two trained models on new images; the last is about new seeds"
        + (", new teachers" if len({number for number, _ in c.keys}) > 1 else "")
        + " and new images, crossed. McNemar's p are not adjusted."
    )
    a, b = c.correct_variant.sum(0), c.correct_reference.sum(0)
    order = np.argsort(-np.abs(a - b), kind="stable")[:most]
    second = Table(
        f"Images on which {c.variant} and {c.reference} disagree most",
        ["test image", "label", f"{c.variant} right", f"{c.reference} right"],
    )  # fmt: skip
    for i in order:
        if a[i] != b[i]:
            second.add([str(i), str(c.labels[i]), f"{a[i]}/{len(c.keys)}", f"{b[i]}/{len(c.keys)}"], c.runs)
    disagreeing = (c.correct_variant != c.correct_reference).mean()
    second.notes.append(
        f"In a pair of runs the two disagree in correctness on {100 * disagreeing:.2f} % of {len(c.labels)} images; "
        f"{int((a > b).sum())} images favour {c.variant}, {int((b > a).sum())} favour {c.reference}."
    )
    return [first, second]


def _interval(value: resampling.Interval | Effects, m: metrics.Metric) -> str:
    return f"{m.text(value.mean, True)} [{m.text(value.low, True)}, {m.text(value.high, True)}]"
