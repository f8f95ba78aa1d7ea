"""Accuracy, likelihood and calibration of predicted probabilities, in float64 (definitions: Nam et al. 2022).

probabilities are [N, K] and sum to 1 over K, labels are [N] integers, logs are natural.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, log_softmax, logsumexp, softmax

BINS = 15
TEMPERATURES = (1e-3, 1e3)  # where the fit looks
FEW = 10  # images


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose most probable class (the first of equals) is the label."""
    return float((np.asarray(probabilities).argmax(1) == np.asarray(labels)).mean())


def nll_of_log(log_probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean -log p of the label, from log-probabilities."""
    log_probabilities = np.asarray(log_probabilities, np.float64)
    return float(0.0 - np.take_along_axis(log_probabilities, np.asarray(labels)[:, None], 1).mean())  # never -0.0


def nll_of_logits(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean -log p of the label, from logits [N, K]."""
    return nll_of_log(log_softmax(np.asarray(logits, np.float64), 1), labels)


def nll(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean -log p of the label; infinite where a label got probability 0."""
    with np.errstate(divide="ignore"):
        return nll_of_log(np.log(np.asarray(probabilities, np.float64)), labels)


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over images of sum_k (p_k - 1[y = k])^2."""
    errors = np.array(probabilities, np.float64)
    errors[np.arange(len(errors)), np.asarray(labels)] -= 1
    return float((errors**2).sum(1).mean())


def entropy(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Entropy of each image's prediction, [N], in nats."""
    return entr(np.asarray(probabilities, np.float64)).sum(1)


def calibration_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count, mean confidence and accuracy of each bin (lo, hi] of the top confidence; nan where a bin is empty."""
    probabilities = np.asarray(probabilities)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == np.asarray(labels)
    # Edges in the confidences' own precision, so that a float32 0.6 lies on the edge 0.6. searchsorted on the right
    # edges puts a confidence that equals an edge into the bin below it, and 1.0 into the last.
    edges = np.linspace(0, 1, bins + 1).astype(confidence.dtype)
    index = np.minimum(np.searchsorted(edges[1:], confidence, side="left"), bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, confidence, bins) / count
        mean_correct = np.bincount(index, correct, bins) / count
    return count, mean_confidence, mean_correct


def ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| averaged over equal-width bins, weighted by their counts."""
    count, confidence, correct = calibration_bins(probabilities, labels, bins)
    filled = count > 0
    return float((count[filled] * np.abs(correct - confidence)[filled]).sum() / count.sum())


def aurc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Area under the risk-coverage curve (Geifman, Uziel, El-Yaniv 2019): the mean, over every coverage k / N, of the
    error rate among the k most confident images. Images of equal confidence share their mean error.
    """
    probabilities = np.asarray(probabilities, np.float64)
    wrong = probabilities.argmax(1) != np.asarray(labels)
    _, group = np.unique(-probabilities.max(1), return_inverse=True)
    shared = (np.bincount(group, wrong) / np.bincount(group))[np.sort(group)]
    return float((shared.cumsum() / np.arange(1, len(shared) + 1)).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T that minimises the NLL of softmax(logits / T), by a bounded search in log T.

    For an ensemble the logits are the log of the averaged probabilities. Where every image is classified right the NLL
    falls with T down to 0 and there is no minimum: T is 1 then.
    """
    from scipy.optimize import minimize_scalar  # half a second, which a command that trains nothing need not wait for

    logits = np.asarray(logits, np.float64)
    if (logits.argmax(1) == np.asarray(labels)).all():
        return 1.0

    def objective(log_t: float) -> float:
        return nll_of_logits(logits / np.exp(log_t), labels)

    found = minimize_scalar(objective, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x))


def average(logits: ArrayLike) -> NDArray[np.float64]:
    """log of the mean of the members' softmaxes: logits [M, N, K] -> [N, K]."""
    logits = np.asarray(logits, np.float64)
    return logsumexp(log_softmax(logits, -1), 0) - np.log(len(logits))


def evaluate(logits: ArrayLike, labels: ArrayLike, temperature: float) -> dict[str, float]:
    """Every metric of logits [N, K] (or log-probabilities), as is and at a temperature fitted on other data."""
    logits = np.asarray(logits, np.float64)
    probabilities, scaled = softmax(logits, 1), softmax(logits / temperature, 1)
    return {
        "acc": accuracy(probabilities, labels),
        "nll": nll_of_logits(logits, labels),
        "brier": brier(probabilities, labels),
        "ece": ece(probabilities, labels),
        "nll_ts": nll_of_logits(logits / temperature, labels),
        "ece_ts": ece(scaled, labels),
        "aurc": aurc(probabilities, labels),
        "ece_bins": int((calibration_bins(probabilities, labels)[0] > 0).sum()),
        "temperature": temperature,
    }


def oddities(logits: dict[str, NDArray], labels: dict[str, NDArray], temperature: float) -> list[str]:
    """What is odd about predictions on `validation` and `test` (logits [N, K], labels [N]), in words: numbers that are
    right, but do not mean what they mean elsewhere.
    """
    found = []
    validation, test = (np.asarray(logits[name]) for name in ("validation", "test"))
    if len(validation) < FEW:
        found.append(f"the validation split has {len(validation)} images: epoch and temperature are chosen on these")
    if (validation.argmax(1) == np.asarray(labels["validation"])).all():
        found.append("every validation image is classified right: no temperature was fitted")
    elif not 1.01 * TEMPERATURES[0] < temperature < TEMPERATURES[1] / 1.01:
        found.append(f"the temperature that suits the validation split lies at its bound ({temperature:.3g})")
    if len(np.unique(test.argmax(1))) == 1 < test.shape[1]:
        found.append(f"it answers class {int(test.argmax(1)[0])} for every test image")
    if (certain := int((softmax(np.asarray(test, np.float64), 1).max(1) == 1).sum())) > 0:
        found.append(f"it is certain of {certain} of {len(test)} test images (probability exactly 1)")
    return found


def pairwise_kl(logits: ArrayLike) -> float:
    """Mean KL(p_i || p_j) over ordered pairs of members and over images; logits [M, N, K]."""
    return float(np.mean([kl(p, q) for p, q in itertools.permutations(np.asarray(logits), 2)]))


def pairwise_agreement(logits: ArrayLike) -> float:
    """Share of images on which two members name the same class, a mean over pairs; logits [M, N, K]."""
    classes = np.asarray(logits).argmax(-1)
    pairs = [(classes[i] == classes[j]).mean() for i in range(len(classes)) for j in range(i)]
    return float(np.mean(pairs))


def kl(logits: ArrayLike, other: ArrayLike) -> float:
    """Mean over images of KL(p || q), for logits (or log-probabilities) [N, K] of p and of q."""
    log_p, log_q = (log_softmax(np.asarray(each, np.float64), -1) for each in (logits, other))
    return float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean())


def ambiguity(logits: ArrayLike, labels: ArrayLike) -> float:
    """The members' mean NLL less that of their ensemble; logits [M, N, K], labels [N]."""
    alone = np.mean([nll_of_logits(one, labels) for one in logits])
    return float(alone - nll_of_log(average(logits), labels))
