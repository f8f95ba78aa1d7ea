"""A data set of a researcher's own: `data=MODULE:FUNCTION`, or an entry point in the group `harness.data`.

    def lesions(root, size=28):                      # options after the first: +data.options.size=64
        return {
            "train": (images, labels),
            "test": (images, labels),
            "validation": (images, labels),          # or none: the last tenth of every class of `train`, or data.validation
            "classes": ["benign", "malignant"],      # or none: as many as there are labels
        }

root is `data.root`, None where it is not given. Images are uint8, in an array or a tensor [N, H, W], [N, H, W, C] or
[N, C, H, W] of one or three channels and equal sides; or a list of image files, which are read as those of `data=folder`
are. Labels count from 0. Everything else, from moments to fingerprints, is the harness's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.config import ConfigError, brought
from harness.runtime.console import Console
from harness.training.data.dataset import Dataset, Split, subset
from harness.training.data.folder import Listed, choose, measure, read_splits, split_off
from harness.training.data.listing import LeftOut

SPLITS = ("train", "validation", "test")


def load(config: dict[str, Any], console: Console) -> Dataset:
    """The set that `data.name` brings. Raises ConfigError where what its function returns is none."""
    name = config["name"]
    given = call(config)
    if missing := {"train", "test"} - given.keys():
        raise ConfigError(f"data={name} returns no {' and no '.join(sorted(missing))} split")
    if unknown := given.keys() - {*SPLITS, "classes"}:
        raise ConfigError(
            f"data={name} returns {', '.join(map(repr, sorted(map(str, unknown))))}, which means nothing here"
        )
    listed = {split: read(found, name, split) for split in SPLITS if (found := given.get(split)) is not None}
    classes = classes_of(given.get("classes"), [labels for _, labels in listed.values()], f"data={name}")
    if "validation" not in listed:
        listed["train"], listed["validation"] = split_off(
            listed["train"], classes, config["validation"], None, f"data={name}"
        )
    elif config["validation"] is not None:
        raise ConfigError(f"data.validation={config['validation']}: data={name} has a validation split of its own")
    listed["train"] = choose(listed["train"], subset(listed["train"][1], config["train"]))
    listed = {split: listed[split] for split in SPLITS}
    in_files = {isinstance(images, list) for images, _ in listed.values()}
    if len(in_files) > 1:
        raise ConfigError(f"data={name} returns files for one split and pixels for another")
    if in_files == {True}:
        splits = read_splits(listed, config, console, LeftOut(), f"data={name}")
    else:
        splits = [Split(images, labels) for images, labels in listed.values()]
        check_alike(splits, name)
    return Dataset(len(classes), *measure(splits[0]), *splits, classes)


def call(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the function returns. Raises ConfigError where it raises anything, or returns no dictionary."""
    name, root = config["name"], config["root"]
    try:
        found = brought.load("data", name)(None if root is None else Path(root), **config["options"])
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"data={name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"data={name} returns {type(found).__name__}, not a dictionary of splits")
    return dict(found)


def read(found: Any, name: str, split: str) -> Listed:
    """A split's images and labels. Raises ConfigError where they are none."""
    where = f"the {split} split of data={name}"
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ConfigError(f"{where} is not (images, labels)")
    try:
        if len(found[1]) == 0:
            raise ConfigError(f"{where} is empty")
        images, labels = images_of(found[0], where), labels_of(found[1], where)
    except ConfigError:
        raise
    except Exception as error:  # whatever NumPy and torch make of somebody's objects
        raise ConfigError(
            f"{where} is no images and labels that could be read: {type(error).__name__}: {error}"
        ) from error
    if len(images) != len(labels):
        raise ConfigError(f"{where} has {len(images)} images but {len(labels)} labels")
    return images, labels


def images_of(images: Any, where: str) -> Tensor | list[Path]:
    """Images [N, C, H, W], or their files."""
    if isinstance(images, list | tuple) and all(isinstance(image, str | Path) for image in images):
        return [Path(image) for image in images]
    pixels = images.detach().cpu() if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images).copy())
    if pixels.dtype != torch.uint8:
        raise ConfigError(f"{where} has pixels of {pixels.dtype}, not uint8 from 0 to 255")
    if pixels.dim() == 3:
        pixels = pixels[:, None]
    elif pixels.dim() == 4 and pixels.shape[1] not in (1, 3):
        pixels = pixels.movedim(-1, 1)
    if pixels.dim() != 4 or pixels.shape[1] not in (1, 3) or pixels.shape[2] != pixels.shape[3]:
        raise ConfigError(
            f"{where} has images {list(np.shape(images))}: [N, H, W], [N, H, W, C] or [N, C, H, W] of one or three "
            "channels and equal sides are known"
        )
    return pixels.contiguous()


def labels_of(labels: Any, where: str) -> Tensor:
    """Labels [N] of int64; one of several columns [N, 1] is taken for [N]."""
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or given.dtype.kind not in "iub":
        raise ConfigError(
            f"{where} has labels {list(given.shape)} of {given.dtype}: one whole number an image is known"
        )
    low, high = int(given.min()), int(given.max())
    if low < 0 or high > torch.iinfo(torch.int64).max:
        raise ConfigError(f"{where} has labels from {low} to {high}: they count from 0")
    return torch.from_numpy(given.astype(np.int64))


def classes_of(names: Any, labels: Sequence[Tensor], where: str) -> list[str]:
    """The names of the classes, in the order of their labels. names: what was returned as such, None for none.

    Raises ConfigError where they are no such names, or labels [N] go beyond them.
    """
    most = 1 + max(int(split.max()) for split in labels)
    if names is None:
        known = len(labels[0])  # every class is trained on
        found = [str(label) for label in range(min(most, known))]
    elif isinstance(names, str | Mapping | Set) or not isinstance(names, Iterable):
        raise ConfigError(
            f"{where} returns classes of type {type(names).__name__}: give a list of names, in the order of labels"
        )
    else:
        found = [str(name) for name in names]
    if twice := next((name for name in found if found.count(name) > 1), None):
        raise ConfigError(f"{where} has two classes named {twice!r}")
    if most > len(found):
        of = f"{len(found)} classes" if names is not None else f"{len(found)} images to train on"
        raise ConfigError(f"{where} has labels from 0 to {most - 1}, more than its {of}: labels count from 0")
    return found


def check_alike(splits: list[Split], name: str) -> None:
    """Raise ConfigError where splits have images of different shapes."""
    shapes = {tuple(split.images.shape[1:]) for split in splits}
    if len(shapes) > 1:
        raise ConfigError(f"data={name} has images of {' and of '.join(str(list(shape)) for shape in sorted(shapes))}")
