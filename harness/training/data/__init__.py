"""Data sets by name, one module each, and the batches made of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib import import_module
from typing import Any

from harness.config.brought import data_options, target
from harness.runtime.console import Console
from harness.training.data.batches import Batches, DeviceBatches, Own, all_of
from harness.training.data.dataset import Dataset, Split, check, subset
from harness.training.data.files import FileImages
from harness.training.data.workers import WorkerBatches

MODULES = {
    "digits": "harness.training.data.digits",
    "fashion_mnist": "harness.training.data.fashion_mnist",
    "cifar10": "harness.training.data.cifar",
    "cifar100": "harness.training.data.cifar",
    "svhn": "harness.training.data.svhn",
    "tiny_imagenet": "harness.training.data.tiny_imagenet",
    "folder": "harness.training.data.folder",
    "imagenet": "harness.training.data.imagenet",
}
BROUGHT = "harness.training.data.brought"


def load(config: dict[str, Any], console: Console | None = None) -> Dataset:
    """The data set of a `data` configuration, on the CPU, checked, its train split cut down to `data.train` images.

    Raises ConfigError, in one line that names the file, where data are missing or damaged.
    """
    name = config["name"]
    config = asdict(data_options(name)) | config  # a record may be older than an option
    module = BROUGHT if target("data", name) else MODULES[name]
    data = check(import_module(module).load(config, console or Console()), name)
    rows = subset(data.train.labels, config["train"])
    return data if len(rows) == len(data.train) else replace(data, train=data.train.choose(rows))


def train_batches(
    split: Split,
    padding: int,
    flip: bool,
    seed: int | str,
    batch_size: int,
    steps: int | None = None,
    own: Own = all_of,
) -> Batches:
    """Batches of a train split, where its images are: on the device, or in files, which workers crop in their own way.

    steps: at most so many an epoch. own: which rows of each this process computes.
    """
    if isinstance(split.images, FileImages):
        return WorkerBatches(split, flip, seed, batch_size, steps, own)
    return DeviceBatches(split, padding, flip, seed, batch_size, steps, own)


__all__ = ["MODULES", "Dataset", "Split", "load", "train_batches"]
