"""scikit-learn's handwritten digits: 1,797 real 8x8 images in ten classes, part of the package (no download)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.runtime.console import Console
from harness.training.data.dataset import Dataset, Split, check_validation

CLASSES, VALIDATION, TEST = 10, 300, 997


def load(config: dict[str, Any], console: Console) -> Dataset:
    """A fixed stratified split of 500, 300 and 997 images; small, so that results sit below the ceiling.

    Of train and validation images together there are 800, however many are held out.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    grey, labels = load_digits(return_X_y=True)  # grey levels 0..16
    images = np.rint(grey.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=TEST, stratify=labels, random_state=0)
    held = check_validation(config["validation"] or VALIDATION, len(rest), CLASSES, "digits")
    train, validation = train_test_split(rest, test_size=held, stratify=labels[rest], random_state=0)

    def split(rows: np.ndarray) -> Split:
        rows = np.sort(rows)
        return Split(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows].astype(np.int64)))

    pixels = images[train] / 255
    return Dataset(
        CLASSES, (float(pixels.mean()),), (float(pixels.std()),), split(train), split(validation), split(test)
    )
