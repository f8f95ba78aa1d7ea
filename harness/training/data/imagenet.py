"""ImageNet-1k: 1.28 million photographs in 1,000 classes (Russakovsky et al. 2015), in its usual layout.

ROOT holds train/WNID/*.JPEG and val/WNID/*.JPEG; it has to be asked for at https://image-net.org, and cannot be
downloaded from here. The labels of its test images were never published: `val` is the test split, and the last 50
images of every class in `train` are the validation split.
"""

from __future__ import annotations

from typing import Any

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data.archives import root_folder
from harness.training.data.dataset import Dataset
from harness.training.data.folder import list_splits, read_splits
from harness.training.data.listing import LeftOut

CLASSES = 1000
VALIDATION = 50  # images of each class
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(config: dict[str, Any], console: Console) -> Dataset:
    """1,231,167 train, 50,000 validation and 50,000 test images, classes in the order of their WNIDs."""
    left_out = LeftOut()
    classes, listed = list_splits(config, ("val",), left_out, VALIDATION)
    if len(classes) != CLASSES:
        root = root_folder(config["root"])
        raise ConfigError(f"{root / 'train'} has {len(classes)} classes, ImageNet-1k has {CLASSES:,}: use data=folder")
    return Dataset(
        CLASSES, MEAN, SD, *read_splits(listed, config, console, left_out, str(root_folder(config["root"]))), classes
    )
