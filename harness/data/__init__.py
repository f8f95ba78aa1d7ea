"""Data sets by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from harness.data.dataset import Dataset, Split

MODULES = {"digits": "harness.data.digits"}


def load(config: dict[str, Any]) -> Dataset:
    """The data set of a `data` configuration, on the CPU."""
    return import_module(MODULES[config["name"]]).load()


__all__ = ["MODULES", "Dataset", "Split", "load"]
