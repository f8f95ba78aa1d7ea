"""Evaluation metrics, learning rate, augmentation, initial weights and parameter counts."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

from harness.evaluation import metrics
from harness.training import networks
from harness.training.data import Split
from harness.training.data.augmentation import Augmentation
from harness.training.optimisation import learning_rate
from methods.latent_be import convert
from tests.reference import layout
from tests.reference.file import ReferenceFile

FLOAT32 = 1e-5  # the file's metrics are float32 sums over hundreds of images
TEMPERATURE = 1e-6  # of a minimum, where the NLL is flat
FLOOR = 1e-8  # the file's likelihoods and entropies are those of p + FLOOR
STANDARD_ERRORS = 6.0  # by which two samples of initial weights may differ
CUT_SD = 0.8796256610342398  # of a standard normal cut at +-2
RECIPE = {"peak": 0.1, "warmup_steps": 5 * 351, "total_steps": 200 * 351}


def check_evaluation(file: ReferenceFile) -> list[str]:
    """Judge every quantity of a metrics file; returns what is worth saying above the results."""
    tags = [tag for tag in file.children("") if f"{tag}/tst/conf" in file.arrays]
    for tag in tags:
        check_metrics(file, tag)
        check_temperature(file, tag)
    if "edge/conf" in file.arrays:
        check_calibration(file, "edge", file.take("edge/conf"), file.take("edge/labels"))
    if "lr/steps" in file.arrays:
        rates = [learning_rate(int(step), **RECIPE) for step in file.take("lr/steps")]
        file.compare("lr/values", rates, 1e-6)
    if "aug/in" in file.arrays:
        check_augmentation(file)
    for kind in file.children("init"):
        check_initialisation(file, kind)
    return [
        "handled exactly: the reference adds 1e-8 to every probability (the NLL of logits does not need it)",
        "temperatures are held to the true minimum; the file's own optimiser can stop before it",
        "initial weights: error in standard errors of the two samples' difference",
    ]


def check_metrics(file: ReferenceFile, tag: str) -> None:
    """What is measured on the test split, as is and at the file's own temperature."""
    probabilities, labels = file.take(f"{tag}/tst/conf"), file.take(f"{tag}/tst/labels")
    if f"{tag}/tst/logits_NMK" in file.arrays:
        logits = file.take(f"{tag}/tst/logits_NMK").swapaxes(0, 1)
        file.compare(f"{tag}/tst/conf", np.exp(metrics.average(logits)), FLOAT32)
        file.compare(f"{tag}/pairwise_kld", metrics.pairwise_kl(logits), FLOAT32)
        file.compare(f"{tag}/pairwise_agr", metrics.pairwise_agreement(logits), FLOAT32)
    temperature = float(file.take(f"{tag}/t_opt"))
    log_probabilities = log(probabilities)
    found = metrics.evaluate(log_probabilities, labels, temperature)
    file.compare(f"{tag}/acc", metrics.accuracy(probabilities, labels), FLOAT32)
    file.compare(f"{tag}/nll", metrics.nll(probabilities.astype(np.float64) + FLOOR, labels), FLOAT32)
    file.compare(f"{tag}/cnll", found["nll_ts"], FLOAT32)
    file.compare(f"{tag}/cece", found["ece_ts"], FLOAT32)
    for name in ("brier", "bs"):
        file.compare(f"{tag}/{name}", metrics.brier(probabilities, labels), FLOAT32)
    file.compare(f"{tag}/ent", metrics.entropy(probabilities.astype(np.float64) + FLOOR).mean(), FLOAT32)
    scaled = torch.softmax(torch.from_numpy(log_probabilities[:20] / temperature), 1)
    file.compare(f"{tag}/scaled_conf_first20", scaled, FLOAT32)
    check_calibration(file, tag, probabilities, labels)


def check_calibration(file: ReferenceFile, tag: str, probabilities: np.ndarray, labels: np.ndarray) -> None:
    edges = np.linspace(0, 1, metrics.BINS + 1)
    count, confidence, correct = metrics.calibration_bins(probabilities, labels)
    file.compare(f"{tag}/ece", metrics.ece(probabilities, labels), FLOAT32)
    file.compare(f"{tag}/bin_lowers", edges[:-1], FLOAT32)
    file.compare(f"{tag}/bin_uppers", edges[1:], FLOAT32)
    file.compare(f"{tag}/bin_frequencies", count, 0)
    file.compare(f"{tag}/bin_confidences", confidence, FLOAT32)
    file.compare(f"{tag}/bin_accuracies", correct, FLOAT32)


def check_temperature(file: ReferenceFile, tag: str) -> None:
    """The temperature fitted on the validation split: the exact minimum, no worse than any other."""
    probabilities, labels = file.take(f"{tag}/val/conf"), file.take(f"{tag}/val/labels")
    if f"{tag}/val/logits_NMK" in file.arrays:
        logits = file.take(f"{tag}/val/logits_NMK").swapaxes(0, 1)
        file.compare(f"{tag}/val/conf", np.exp(metrics.average(logits)), FLOAT32)
    logits = log(probabilities)
    ours = metrics.fit_temperature(logits, labels)
    best = nll_at(logits, labels, ours)
    file.compare(f"nonofficial/{tag}/t_exact", ours, TEMPERATURE)
    file.compare(f"nonofficial/{tag}/val_nll_at_exact", best, 1e-9)
    for name in ("t_opt", "t_opt_log_input"):
        if f"{tag}/{name}" in file.arrays:
            other = float(file.take(f"{tag}/{name}"))
            excess = max(0.0, best - nll_at(logits, labels, other))
            file.judge(f"{tag}/{name}", excess, 1e-12, f"NLL above that of {other:.6g}; ours is {ours:.6g}")
    official = nll_at(logits, labels, float(file.take(f"{tag}/t_opt")))
    file.compare(f"nonofficial/{tag}/val_nll_at_official", official, FLOAT32)


def nll_at(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return metrics.evaluate(logits, labels, temperature)["nll_ts"]


def log(probabilities: np.ndarray) -> np.ndarray:
    """The logarithm as the file takes it, in float64."""
    return np.log(probabilities.astype(np.float64) + FLOOR)


def check_augmentation(file: ReferenceFile) -> None:
    """Crops at given offsets from images padded by 4 with black, mirrored where asked."""
    raw = torch.from_numpy(file.take("aug/in").transpose(0, 3, 1, 2).copy())
    dy, dx = torch.from_numpy(file.take("aug/h0w0")).unbind(1)
    flip = torch.from_numpy(file.take("aug/flip"))
    rows = torch.arange(len(raw))
    views = Augmentation(Split(raw, rows), padding=4, flip=True, seed=0).cut(rows, dy, dx, flip)
    file.compare("aug/out", layout.images_to_file(views), 1e-6)


def check_initialisation(file: ReferenceFile, kind: str) -> None:
    """Statistics of initial weights: mean, sd, sd / sqrt(2 / fan_in), max |value|, then the shape."""
    rows = {path: file.take(f"init/{kind}/{path}") for path in file.paths(f"init/{kind}")}
    network, name = build_like(rows)
    if kind == "be":
        network = convert(network, int(rows["classifier/Linear_BatchEnsemble_0/r"][4]))
    tensors = layout.values_to_file(network)
    if set(tensors) != set(rows):
        raise ValueError(f"init/{kind} and {name} differ in {sorted(set(tensors) ^ set(rows))}")
    count = sum(int(np.prod(row[4:])) for row in rows.values())
    ours = sum(parameter.numel() for parameter in network.parameters())
    file.judge(f"init/{kind}/parameters", abs(ours - count) / count, 0, f"{ours:,} in {name}")
    errors = {path: deviation(tensors[path], row) for path, row in rows.items()}
    worst = max(errors, key=errors.get)
    file.judge(f"init/{kind}", errors[worst], STANDARD_ERRORS, f"{len(errors)} tensors, worst {worst}")


def build_like(rows: dict[str, np.ndarray]) -> tuple[torch.nn.Module, str]:
    """A freshly initialised WRN of the depth, width and classes that the rows' shapes tell."""
    shapes = {path.replace("_BatchEnsemble", ""): row[4:].astype(int) for path, row in rows.items()}
    numbers = {int(found[1]) for path in shapes if (found := re.search(r"BasicBlock_(\d+)/", path))}
    name = f"wrn{2 * len(numbers) + 4}_{shapes['backbone/BasicBlock_0/Conv2d_0/w'][-1] // 16}"
    channels = int(shapes["backbone/FirstBlock_0/Conv2d_0/w"][-2])
    classes = int(shapes["classifier/Linear_0/w"][-1])
    generator = torch.Generator().manual_seed(0)
    return networks.build(name, classes, [0.0] * channels, [1.0] * channels, generator), name


def deviation(tensor: np.ndarray, row: np.ndarray) -> float:
    """How far a fresh tensor is from the reference's statistics, in standard errors (or infinite)."""
    mean, sd, ratio, largest, *shape = row
    if tensor.shape != tuple(map(int, shape)):
        return math.inf
    if sd == 0:  # a constant
        return 0.0 if (tensor == mean).all() and largest == abs(mean) else math.inf
    nominal = sd / ratio
    if np.abs(tensor).max() > 2 * nominal / CUT_SD * (1 + 1e-6):
        return math.inf
    two_samples = math.sqrt(2 / tensor.size)
    in_mean = abs(tensor.mean(dtype=np.float64) - mean) / (nominal * two_samples)
    # A normal cut at 2 sd has kurtosis 2.36 or so, hence var(sd) = sd^2 (2.36 - 1) / 4n.
    in_sd = abs(tensor.std(dtype=np.float64) - sd) / (nominal * math.sqrt(1.36 / 4) * two_samples)
    return max(in_mean, in_sd)
