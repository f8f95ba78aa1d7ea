"""Data sets by name: one module each, whose `load` gives the whole set as tensors."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from harness.data.dataset import Dataset, Split, check
from harness.progress import Console

MODULES = {
    "digits": "harness.data.digits",
    "fashion_mnist": "harness.data.fashion_mnist",
    "cifar10": "harness.data.cifar",
    "cifar100": "harness.data.cifar",
    "svhn": "harness.data.svhn",
    "tiny_imagenet": "harness.data.tiny_imagenet",
    "folder": "harness.data.folder",
}


def load(config: dict[str, Any], console: Console | None = None) -> Dataset:
    """The data set of a `data` configuration, on the CPU, checked.

    Raises ConfigError, in one line that names the file, where data are missing or damaged.
    """
    data = import_module(MODULES[config["name"]]).load(config, console or Console())
    return check(data, config["name"])


__all__ = ["MODULES", "Dataset", "Split", "load"]
