"""Any image set with a folder for each class, as torchvision's ImageFolder reads: SPLIT/CLASS/**/*.jpg (or .png ...).

ROOT holds `train` and a second split, `test` or `val`, which is the test split; with both of them, `val` is the
validation split, else the last tenth of every class of `train` is, at least one image. SPLITS has other names that these
may go by. What is an image, and what is left out, is said in listing.py.

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
from harness.training.data.dataset import Dataset, Split, last_of_each, share_of_each, subset
from harness.training.data.files import FileImages
from harness.training.data.images import read_images
from harness.training.data.listing import LeftOut, leave_out, list_folders, list_images

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
HELD_OUT = 0.1  # of the train images, where there is no validation folder
MEASURED = 2000  # images of a set in files that give its mean and sd

Listed = tuple[list[Path] | Tensor, Tensor]  # files, or images [N, C, H, W], and their labels


def load(config: dict[str, Any], console: Console) -> Dataset:
    """The folders' images, classes in the order of their names; mean and sd are those of the images trained on."""
    left_out = LeftOut()
    classes, listed = list_splits(config, ("test", "val"), left_out)
    train, validation, test = read_splits(listed, config, console, left_out, str(root_folder(config["root"])))
    return Dataset(len(classes), *measure(train), train, validation, test, classes)


def list_splits(
    config: dict[str, Any], tests: tuple[str, ...], left_out: LeftOut, each: int | None = None
) -> tuple[list[str], dict[str, Listed]]:
    """Names of the classes; files and labels of train, validation and test.

    tests: splits that may be the test split, the first that is there is; each: how many images of each class are held
    out, where no folder and no option says; None: HELD_OUT of each.
    """
    root = root_folder(config["root"])
    folders = find_splits(root, ("train", *tests), left_out) if root.is_dir() else {}
    if "train" not in folders:
        raise ConfigError(
            f"{root / 'train'} is missing: data.root is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg"
        )
    second = next((name for name in tests if name in folders), None)
    if second is None:
        raise ConfigError(f"{root} has no {' or '.join(tests)} folder: one is needed as test split")
    places = {name: list_folders(folder, left_out) for name, folder in folders.items()}
    classes = [place.name for place in places["train"]]
    listed = {name: list_split(folders[name], places[name], classes, left_out) for name in folders}
    train, test = listed["train"], listed[second]
    wanted = config["validation"]
    if second == "test" and "val" in folders:
        if wanted is not None:
            raise ConfigError(
                f"data.validation={wanted} holds out train images, but {folders['val']} is the validation split: leave "
                "out one of them"
            )
        validation = listed["val"]
    else:
        train, validation = split_off(train, classes, wanted, each, str(folders["train"]))
    # Now: what is not trained on need not be read, nor does it decide whether the set stays in its files.
    rows = subset(train[1], config["train"])
    left_out[f"beyond data.train={config['train']}"] += len(train[1]) - len(rows)
    train = choose(train, rows)
    return classes, {"train": train, "validation": validation, "test": test}


def find_splits(root: Path, splits: tuple[str, ...], left_out: LeftOut) -> dict[str, Path]:
    """The folders of the splits that are there, by their first name in SPLITS; what lies beside them is left out."""
    found: dict[str, Path] = {}
    for folder in list_folders(root, left_out):
        name = next((name for name in splits if folder.name.lower() in SPLITS[name]), None)
        if name is None:
            leave_out(folder, f"in {folder.name}/", left_out)
        elif name in found:
            raise ConfigError(f"{found[name]} and {folder.name} are both the {name} split: keep one of them")
        else:
            found[name] = folder
    return found


def split_off(
    train: Listed, classes: list[str], validation: int | None, each: int | None, name: str
) -> tuple[Listed, Listed]:
    """What stays of the train images, and the last ones of every class; see list_splits."""
    counts = torch.bincount(train[1], minlength=len(classes))
    if validation is not None:
        held = share_of_each(counts, validation, name)
    elif each is not None:
        held = torch.full_like(counts, each)
    else:
        held = (counts * HELD_OUT).long().clamp(min=1)
    rows = last_of_each(train[1], held, classes, name)
    return choose(train, (~rows).nonzero().flatten()), choose(train, rows.nonzero().flatten())


def list_split(folder: Path, places: list[Path], classes: list[str], left_out: LeftOut) -> Listed:
    """Files and labels, class by class. places: the folders of a split. Raises ConfigError for a class that the train
    split lacks, and for one that this split lacks.
    """
    if not places:
        raise ConfigError(
            f"{folder} has no folders of classes: move its images into them, or rename it to leave it out"
        )
    by_name = {place.name: place for place in places}
    if unknown := sorted(set(by_name) - set(classes)):
        raise ConfigError(f"{folder / unknown[0]} is a class that the train split lacks: add it there, or remove it")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        lying = LeftOut()
        found = list_images(by_name[name], lying) if name in by_name else []
        if not found:
            raise ConfigError(f"{folder / name} has no images ({lying}): add some, or remove the class everywhere")
        left_out.update(lying)
        files += found
        labels += [label] * len(found)
    return files, torch.tensor(labels)


def choose(listed: Listed, rows: Tensor) -> Listed:
    """The images of an index [n]."""
    files, labels = listed
    return files[rows] if isinstance(files, Tensor) else [files[row] for row in rows.tolist()], labels[rows]


def read_splits(
    listed: dict[str, Listed], config: dict[str, Any], console: Console, left_out: LeftOut, name: str
) -> list[Split]:
    """The three splits, read into memory where they fit into `data.memory_gb` together; `name` is what is said of them."""
    size = config["image_size"]
    count = sum(len(files) for files, _ in listed.values())
    needed = count * 3 * size * size
    fits = needed <= config["memory_gb"] * 1e9
    console.say(
        f"{count:,} images of {name}, {left_out}; "
        + ("read into memory" if fits else f"they stay in their files: they would be {needed / 1e9:.1f} GB")
    )
    if fits:
        return [Split(read_images(files, size, True), labels) for files, labels in listed.values()]
    return [Split(FileImages(files, size, config["workers"]), labels) for files, labels in listed.values()]


def measure(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel of a train split; of one in files, by some of its images."""
    step = max(1, len(train) // MEASURED) if isinstance(train.images, FileImages) else 1
    return moments(train.images[::step])


def moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each channel, of pixels in [0, 1]; images [N, C, H, W] uint8."""
    mean, sd = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).double()
        levels, weights = torch.arange(256) / 255, counts / counts.sum()
        mean.append(float((weights * levels).sum()))
        sd.append(float((weights * (levels - mean[-1]).square()).sum().sqrt()) or 1.0)
    return tuple(mean), tuple(sd)
