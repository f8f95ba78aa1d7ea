"""TinyImageNet: 110,000 colour images of 64x64 in 200 classes of ImageNet (Stanford CS231n), in its own layout.

ROOT/tiny-imagenet-200 holds wnids.txt (the classes), words.txt (what they mean), train/WNID/images/*.JPEG and
val/images/*.JPEG with val/val_annotations.txt. The labels of its test folder were never published, so `val` is the
test split, and the last images of every class in `train` are the validation split.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.store.files import reason, write_atomically
from harness.training.data.archives import Archive, md5_of, obtain, root_folder, unpack
from harness.training.data.dataset import Dataset, Split, last_of_each, share_of_each
from harness.training.data.images import read_images
from harness.training.data.listing import LeftOut, list_images

ARCHIVE = Archive(
    "tiny-imagenet-200.zip",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ("90528d7ca1a48142e341f4ef8d21d0de",),
)
FOLDER = "tiny-imagenet-200"
SIZE = 64
VALIDATION = 10000
MEAN, SD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)


def load(config: dict[str, Any], console: Console) -> Dataset:
    """90,000 train, 10,000 validation (50 of every class) and 10,000 test images."""
    root = root_folder(config["root"])
    folder = root / FOLDER
    if not folder.exists():
        (packed,) = obtain([ARCHIVE], "tiny_imagenet", root, config["download"], console)
        unpack(packed, folder, console)
    wnids = read_lines(folder, "wnids.txt")
    left_out = LeftOut()
    train, train_labels = list_train(folder, wnids, left_out)
    test, test_labels = list_test(folder, wnids)
    if left_out.total():
        console.say(f"{folder}: {left_out}")
    images = decode(folder, train + test, console)
    train_images, test_images = images.split([len(train), len(test)])
    validation = share_of_each(torch.bincount(train_labels), config["validation"] or VALIDATION, str(folder))
    held = last_of_each(train_labels, validation, wnids, str(folder))
    kept, validation = (Split(train_images[rows], train_labels[rows]) for rows in (~held, held))
    return Dataset(len(wnids), MEAN, SD, kept, validation, Split(test_images, test_labels), wnids)


def read_lines(folder: Path, name: str) -> list[str]:
    try:
        return (folder / name).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{folder / name} cannot be read: {reason(error)}; remove {folder} to unpack it anew"
        ) from error


def list_train(folder: Path, wnids: list[str], left_out: LeftOut) -> tuple[list[Path], Tensor]:
    """Files and labels of the train folder, class by class in the order of wnids.txt, by name within a class."""
    files: list[Path] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        found = list_images(images, left_out) if images.is_dir() else []
        if not found:
            raise ConfigError(f"{images} has no images: class {wnid} of {folder / 'wnids.txt'} is missing")
        # n01443537_2.JPEG comes before n01443537_10.JPEG: file order is the order of the numbers.
        files += sorted(found, key=lambda path: (len(path.name), path.name))
        labels += [label] * len(found)
    return files, torch.tensor(labels, dtype=torch.int64)


def list_test(folder: Path, wnids: list[str]) -> tuple[list[Path], Tensor]:
    """Files and labels of the `val` folder, by its annotations file: name, class, and a box that is not used."""
    name = "val/val_annotations.txt"
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    files, found = [], []
    for number, line in enumerate(read_lines(folder, name), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in labels:
            raise ConfigError(f"{folder / name}, line {number}: no image and class of wnids.txt in {line!r}")
        files.append(folder / "val" / "images" / fields[0])
        found.append(labels[fields[1]])
    return files, torch.tensor(found, dtype=torch.int64)


def decode(folder: Path, files: list[Path], console: Console) -> Tensor:
    """All images [N, 3, 64, 64], from the file that an earlier run decoded them into where there is one.

    Opening 110,000 files takes minutes on a shared file system. The decoded file's name holds a checksum of the
    annotations, and it is written only when every image could be read.
    """
    key = md5_of(folder / "val" / "val_annotations.txt")[:12]
    place = folder / f"decoded-{key}-{len(files)}.npz"
    try:
        with np.load(place) as stored:
            return torch.from_numpy(stored["images"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        console.say(f"decoding {len(files):,} images of {folder}")
    images = read_images(files, SIZE)
    buffer = io.BytesIO()
    np.savez(buffer, images=images.numpy())
    try:
        write_atomically(place, buffer.getvalue())
    except OSError as error:
        console.say(f"cannot keep the decoded images in {folder} ({error.strerror}); the next run decodes them again")
    return images
