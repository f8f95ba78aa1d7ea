"""Data sets by name, one module each, and the batches made of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from harness.data.batches import Batches, DeviceBatches
from harness.data.dataset import Dataset, Split, check
from harness.data.files import FileImages
from harness.data.workers import WorkerBatches
from harness.progress import Console

MODULES = {
    "digits": "harness.data.digits",
    "fashion_mnist": "harness.data.fashion_mnist",
    "cifar10": "harness.data.cifar",
    "cifar100": "harness.data.cifar",
    "svhn": "harness.data.svhn",
    "tiny_imagenet": "harness.data.tiny_imagenet",
    "folder": "harness.data.folder",
    "imagenet": "harness.data.imagenet",
}


def load(config: dict[str, Any], console: Console | None = None) -> Dataset:
    """The data set of a `data` configuration, on the CPU, checked.

    Raises ConfigError, in one line that names the file, where data are missing or damaged.
    """
    data = import_module(MODULES[config["name"]]).load(config, console or Console())
    return check(data, config["name"])


def train_batches(
    split: Split, padding: int, flip: bool, seed: int | str, batch_size: int, steps: int | None = None
) -> Batches:
    """Batches of a train split, where its images are: on the device, or in files, which workers crop in their own way.

    steps: at most so many an epoch.
    """
    if isinstance(split.images, FileImages):
        return WorkerBatches(split, flip, seed, batch_size, steps)
    return DeviceBatches(split, padding, flip, seed, batch_size, steps)


__all__ = ["MODULES", "Dataset", "Split", "load", "train_batches"]
