"""Any image set with a folder for each class, as torchvision's ImageFolder reads: SPLIT/CLASS/*.jpg (or .png ...).

ROOT holds `train` and a second split, `test` or `val`, which is the test split; with both of them, `val` is the
validation split, else the last images of every class of `train` are.

A set of at most `data.memory_gb` is scaled to `data.image_size` (shorter side, then the centre) and kept as one tensor.
A larger one stays in its files: worker processes decode it, random parts of images for training, the centre for
evaluation (see harness/training/data/files.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data.archives import root_folder
from harness.training.data.dataset import Dataset, Split, last_of_each, subset
from harness.training.data.files import FileImages
from harness.training.data.images import image_files, read_images

HELD_OUT = 0.1  # of the train images, where there is no validation folder
MEASURED = 2000  # images of a set in files that give its mean and sd

Listed = tuple[list[Path], Tensor]  # files and their labels


def load(config: dict[str, Any], console: Console) -> Dataset:
    """The folders' images, classes in the order of their names; mean and sd are those of the images trained on."""
    classes, listed = list_splits(config, ("test", "val"))
    train, validation, test = read_splits(listed, config, console)
    step = max(1, len(train) // MEASURED) if isinstance(train.images, FileImages) else 1
    mean, sd = moments(train.images[::step])
    return Dataset(len(classes), mean, sd, train, validation, test)


def list_splits(config: dict[str, Any], tests: tuple[str, ...]) -> tuple[list[str], dict[str, Listed]]:
    """Names of the classes; files and labels of train, validation and test. tests: folders that may be the test split."""
    root = root_folder(config["root"])
    if not (root / "train").is_dir():
        raise ConfigError(
            f"{root / 'train'} is missing: data.root is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg"
        )
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    second = next((name for name in tests if (root / name).is_dir()), None)
    if second is None or not classes:
        raise ConfigError(f"{root} has no {' or '.join(tests) + ' folder' if classes else 'class folders in train'}")
    train, test = (list_split(root / name, classes) for name in ("train", second))
    if second == "test" and (root / "val").is_dir():
        validation = list_split(root / "val", classes)
    else:
        files, labels = train
        held = last_of_each(labels, len(classes), config["validation"] or int(HELD_OUT * len(files)))
        train, validation = choose(train, (~held).nonzero().flatten()), choose(train, held.nonzero().flatten())
    # Now: what is not trained on need not be read, nor does it decide whether the set stays in its files.
    train = choose(train, subset(train[1], config["train"]))
    return classes, {"train": train, "validation": validation, "test": test}


def list_split(folder: Path, classes: list[str]) -> Listed:
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
    return files, torch.tensor(labels)


def choose(listed: Listed, rows: Tensor) -> Listed:
    """The images of an index [n]."""
    files, labels = listed
    return [files[row] for row in rows.tolist()], labels[rows]


def read_splits(listed: dict[str, Listed], config: dict[str, Any], console: Console) -> list[Split]:
    """The three splits, read into memory where they fit into `data.memory_gb` together."""
    size, root = config["image_size"], root_folder(config["root"])
    count = sum(len(files) for files, _ in listed.values())
    needed = count * 3 * size * size
    if needed > config["memory_gb"] * 1e9:
        console.say(f"{count:,} images of {root} stay in their files: they would be {needed / 1e9:.1f} GB")
        return [Split(FileImages(files, size, config["workers"]), labels) for files, labels in listed.values()]
    console.say(f"reading {count:,} images of {root}")
    return [Split(read_images(files, size, True), labels) for files, labels in listed.values()]


def moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel, of pixels in [0, 1]; images [N, C, H, W] uint8."""
    mean, sd = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten().int(), minlength=256).double()
        levels, weights = torch.arange(256) / 255, counts / counts.sum()
        mean.append(float((weights * levels).sum()))
        sd.append(float((weights * (levels - mean[-1]).square()).sum().sqrt()) or 1.0)
    return tuple(mean), tuple(sd)
