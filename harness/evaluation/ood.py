"""Telling images of the data set from those of another by how sure the prediction is.

In a run's record, under `ood`, for every NAME of `evaluate.ood=[NAME,...]`:

    {NAME: {student, teacher, ensemble: {auroc_confidence, auroc_entropy, fpr95_confidence, fpr95_entropy}}}

Known images are the test split's, unknown ones are the other set's test split, brought to the size and the channels of
the known ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from torch import Tensor, nn

from harness.evaluation import metrics
from harness.evaluation.shift import Logits, predict_student, predict_teachers
from harness.store.findings import Remember
from harness.training.data import Dataset, Split
from harness.training.ranks import ALONE, Ranks
from methods.method import Teachers

TPR = 0.95
GREY = (0.299, 0.587, 0.114)  # of red, green and blue


def adapt(images: Tensor, channels: int, size: int) -> Tensor:
    """Images [N, C, H, W] uint8 of any set as [N, channels, size, size] uint8."""
    if images.shape[1] == 3 and channels == 1:
        weights = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
        images = (images * weights).sum(1, keepdim=True).round().byte()
    images = images.expand(-1, channels, -1, -1)
    if images.shape[-2:] == (size, size):
        return images.contiguous()
    batches = (F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True) for x in images.split(1000))
    return torch.cat([x.round().clamp(0, 255).byte() for x in batches])


def auroc(known: ArrayLike, unknown: ArrayLike) -> float:
    """Probability that a known image scores higher than an unknown one; ties count half."""
    known, unknown = np.asarray(known), np.sort(np.asarray(unknown))
    below, reached = (np.searchsorted(unknown, known, side).sum() for side in ("left", "right"))
    return float((below + reached) / 2 / (len(known) * len(unknown)))


def fpr(known: ArrayLike, unknown: ArrayLike, tpr: float = TPR) -> float:
    """Share of unknown images that score at least as high as the threshold which `tpr` of the known ones reach."""
    descending = np.sort(np.asarray(known))[::-1]
    threshold = descending[int(np.ceil(tpr * len(descending))) - 1]
    return float((np.asarray(unknown) >= threshold).mean())


def scores(logits: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """How sure each prediction is [N]: the top probability, and minus the entropy."""
    probabilities = softmax(np.asarray(logits, np.float64), 1)
    return {"confidence": probabilities.max(1), "entropy": -metrics.entropy(probabilities)}


def evaluate(
    others: dict[str, Dataset],
    data: Dataset,
    student: nn.Module,
    teachers: Teachers,
    remember: Remember,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """The record's `ood`, against the test splits of other data sets by name; see `shift.evaluate` on teachers."""
    found: dict[str, Any] = {}
    for name, other in others.items():
        images = adapt(other.test.images, data.test.images.shape[1], data.size).to(data.test.images.device)
        unknown = Split(images, other.test.labels)
        found[name] = compare(partial(predict_student, student, ranks=ranks), data.test, unknown)
        if len(teachers):
            judge = partial(compare, partial(predict_teachers, teachers, ranks=ranks), data.test, unknown)
            found[name] |= remember("ood", [name, other.fingerprint()], judge)
    return found


def compare(predict_split: Callable[[Split], Logits], known: Split, unknown: Split) -> dict[str, dict[str, float]]:
    """How well whoever predicts tells known images from unknown ones."""
    outside = {who: scores(logits) for who, logits in predict_split(unknown).items()}
    inside = {who: scores(logits) for who, logits in predict_split(known).items()}
    return {who: separation(inside[who], outside[who]) for who in inside}


def separation(known: dict[str, NDArray[np.float64]], unknown: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    found = {f"auroc_{by}": auroc(known[by], unknown[by]) for by in known}
    return found | {f"fpr95_{by}": fpr(known[by], unknown[by]) for by in known}
