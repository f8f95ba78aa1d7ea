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

from collections.abc import Mapping
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
    most = 1 + max(int(labels.max()) if len(labels) else 0 for _, labels in listed.values())
    classes = [str(label) for label in (range(most) if given.get("classes") is None else given["classes"])]
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
    except Exception as error:
        raise ConfigError(f"data={name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"data={name} returns {type(found).__name__}, not a dictionary of splits")
    return dict(found)


def read(found: Any, name: str, split: str) -> Listed:
    """A split's images and labels. Raises ConfigError where they are none."""
    where = f"the {split} split of data={name}"
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ConfigError(f"{where} is not (images, labels)")
    images, labels = images_of(found[0], where), labels_of(found[1], where)
    if len(images) != len(labels):
        raise ConfigError(f"{where} has {len(images)} images but {len(labels)} labels")
    return images, labels


def images_of(images: Any, where: str) -> Tensor | list[Path]:
    """Images [N, C, H, W], or their files."""
    if isinstance(images, list | tuple) and all(isinstance(image, str | Path) for image in images):
        return [Path(image) for image in images]
    pixels = torch.as_tensor(images if isinstance(images, Tensor) else np.asarray(images).copy())
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
    given = np.asarray(labels)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or given.dtype.kind not in "iub":
        raise ConfigError(
            f"{where} has labels {list(given.shape)} of {given.dtype}: one whole number an image is known"
        )
    return torch.from_numpy(given.astype(np.int64))


def check_alike(splits: list[Split], name: str) -> None:
    """Raise ConfigError where splits have images of different shapes."""
    shapes = {tuple(split.images.shape[1:]) for split in splits}
    if len(shapes) > 1:
        raise ConfigError(f"data={name} has images of {' and of '.join(str(list(shape)) for shape in sorted(shapes))}")
