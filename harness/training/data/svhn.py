"""SVHN: 99,289 colour images of house numbers' digits, 32x32 (Netzer et al. 2011), read by torchvision.

Found in ROOT as train_32x32.mat and test_32x32.mat.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import SVHN

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data.archives import Archive, obtain, root_folder
from harness.training.data.dataset import Dataset, Split, hold_out

VALIDATION = 5000
MEAN, SD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)


def load(config: dict[str, Any], console: Console) -> Dataset:
    """68,257 train, 5,000 validation and 26,032 test images, in file order; the extra images are not used."""
    root = root_folder(config["root"])
    archives = [Archive(file, url, (md5,)) for url, file, md5 in (SVHN.split_list[s] for s in ("train", "test"))]
    obtain(archives, "svhn", root, config["download"], console)
    whole = read(root, "train")
    train, validation = hold_out(whole.images, whole.labels, config["validation"] or VALIDATION, "svhn")
    return Dataset(10, MEAN, SD, train, validation, read(root, "test"))


def read(root: Path, split: str) -> Split:
    """A whole .mat file; its label 10 is the digit 0."""
    try:
        found = SVHN(root, split)
    except Exception as error:  # scipy's reader raises whatever a damaged file makes of its types
        raise ConfigError(
            f"{root / SVHN.split_list[split][1]} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return Split(torch.from_numpy(found.data.copy()), torch.from_numpy(found.labels))
