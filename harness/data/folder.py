"""Any image set with a folder for each class, as torchvision's ImageFolder reads: SPLIT/CLASS/*.jpg (or .png ...).

ROOT holds `train` and a second split, `test` or `val`, which is the test split; with both of them, `val` is the
validation split, else the last images of every class of `train` are. Images are scaled to `data.image_size` (shorter
side, then the centre) and kept as one tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.config import ConfigError
from harness.data.archives import root_folder
from harness.data.dataset import Dataset, Split
from harness.data.images import image_files, read_images
from harness.data.tiny_imagenet import split_by_class
from harness.progress import Console

HELD_OUT = 0.1  # of the train images, where there is no validation folder
LIMIT_BYTES = 64 << 30


def load(config: dict[str, Any], console: Console) -> Dataset:
    """The folders' images, classes in the order of their names; mean and sd are those of the train split."""
    root, size = root_folder(config["root"]), config["image_size"]
    if not (root / "train").is_dir():
        raise ConfigError(
            f"{root / 'train'} is missing: data.root is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg"
        )
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    second = next((name for name in ("test", "val") if (root / name).is_dir()), None)
    if second is None or not classes:
        raise ConfigError(f"{root} has no {'test or val folder' if classes else 'class folders in train'}")
    has_validation = second == "test" and (root / "val").is_dir()
    splits = {name: list_split(root / name, classes) for name in ["train", second] + ["val"] * has_validation}
    count = sum(len(files) for files, _ in splits.values())
    if (needed := count * 3 * size * size) > LIMIT_BYTES:
        raise ConfigError(
            f"{count:,} images of {size}x{size} are {needed / 1e9:.0f} GB: too many for one tensor; "
            "choose a smaller data.image_size"
        )
    console.say(f"reading {count:,} images of {root}")
    read = {
        name: Split(read_images(files, size, True), torch.tensor(labels)) for name, (files, labels) in splits.items()
    }
    train = read["train"]
    if has_validation:
        validation = read["val"]
    else:
        train, validation = split_by_class(train, len(classes), config["validation"] or int(HELD_OUT * len(train)))
    mean, sd = moments(train.images)
    return Dataset(len(classes), mean, sd, train, validation, read[second])


def list_split(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """Files and labels, class by class. Raises ConfigError for a class that the train split lacks."""
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
    if unknown:
        raise ConfigError(f"{folder / unknown[0]} is a class that the train split lacks")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = image_files(folder / name) if (folder / name).is_dir() else []
        if not found:
            raise ConfigError(f"{folder / name} has no images")
        files += found
        labels += [label] * len(found)
    return files, labels


def moments(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel, of pixels in [0, 1]; images [N, C, H, W] uint8."""
    mean, sd = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten().int(), minlength=256).double()
        levels, weights = torch.arange(256) / 255, counts / counts.sum()
        mean.append(float((weights * levels).sum()))
        sd.append(float((weights * (levels - mean[-1]).square()).sum().sqrt()) or 1.0)
    return tuple(mean), tuple(sd)
