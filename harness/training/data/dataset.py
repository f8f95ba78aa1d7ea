"""A data set as raw pixels: whole tensors on one device, or images in files that stand in for one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import streams
from harness.config import ConfigError
from harness.store.fingerprints import FILES
from harness.training.data.contents import class_and_size, contents, size_and_sample, size_and_time
from harness.training.data.files import FileImages


@dataclass(frozen=True)
class Split:
    """Images [N, C, H, W] uint8 and labels [N] int64, on one device.

    padded: images with a black margin, of which `images` are a view, so that one copy serves crops and all else.
    """

    images: Tensor | FileImages
    labels: Tensor
    padded: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def choose(self, rows: Tensor) -> Split:
        """The images of an index [n]."""
        return Split(self.images[rows], self.labels[rows])

    def to(self, device: torch.device | str) -> Split:
        if self.padded is None:
            return Split(self.images.to(device), self.labels.to(device))
        return within(self.padded.to(device), self.images.shape[-2:], self.labels.to(device))

    def pad(self, padding: int) -> Split:
        """The same split with `padding` black pixels around every image; in files they stay as they are."""
        if isinstance(self.images, FileImages):
            return self
        return within(self.padded_by(padding), self.images.shape[-2:], self.labels)

    def padded_by(self, padding: int) -> Tensor:
        """Images [N, C, H + 2p, W + 2p]: those that are there, where the margin is this wide."""
        known = self.images if self.padded is None else self.padded
        if known.shape[-1] == self.images.shape[-1] + 2 * padding:
            return known
        return F.pad(self.images, (padding,) * 4)


def within(padded: Tensor, size: Sequence[int], labels: Tensor) -> Split:
    """A split whose images are the middle, of height and width `size`, of padded ones."""
    height, width = size
    padding = (padded.shape[-1] - width) // 2
    return Split(padded[..., padding : padding + height, padding : padding + width], labels, padded)


@dataclass(frozen=True)
class Dataset:
    """Three splits and what a network must know of them."""

    classes: int
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    sd: tuple[float, ...]
    train: Split
    validation: Split
    test: Split
    names: Sequence[str] = ()  # of the classes, where they have any

    @property
    def resize(self) -> int:
        """What the shorter side of a picture is scaled to, before its middle of `size` is cut out."""
        images = self.test.images
        return images.resize if isinstance(images, FileImages) else self.size

    @property
    def size(self) -> int:
        """Height and width of an image."""
        return self.train.images.shape[-1]

    def to(self, device: torch.device | str) -> Dataset:
        train, validation, test = (split.to(device) for split in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)

    def fingerprint(self, full: bool = False) -> str:
        """A hash of every pixel, label and split: equal where two runs saw the same data. Of files, of their names, sizes
        and of a sample of their contents, or if `full` of all of these; see harness/store/fingerprints.py.
        """
        if not isinstance(self.train.images, FileImages):
            return self.hash(lambda images: images.cpu().numpy().tobytes())
        sample = FILES + self.hash(lambda images: images.hash(size_and_sample))
        return sample + ("+" + self.hash(lambda images: images.hash(contents)) if full else "")

    @functools.cached_property
    def older_fingerprint(self) -> str:
        """What older code took for the fingerprint of a set in files."""
        return self.hash(lambda images: images.hash(class_and_size, named=False))

    def written(self) -> str | None:
        """A hash that is another once somebody has written to a file of the set; None where it is in memory."""
        return (
            self.hash(lambda images: images.hash(size_and_time)) if isinstance(self.train.images, FileImages) else None
        )

    def hash(self, look: Callable[[Tensor | FileImages], bytes]) -> str:
        """A hash of splits, labels and of what is seen of their images."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(look(split.images))
            digest.update(split.labels.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def hold_out(images: Tensor, labels: Tensor, validation: int, name: str) -> tuple[Split, Split]:
    """The first images as the train split, the last `validation` of them as the validation split, in file order."""
    kept = len(labels) - check_validation(validation, len(labels), 1, name)
    # A copy of the few: a view would keep all of them in memory once the train split is padded.
    return Split(images[:kept], labels[:kept]), Split(images[kept:].clone(), labels[kept:])


def check_validation(validation: int, images: int, classes: int, name: str) -> int:
    """`data.validation` itself. Raises ConfigError where not every class could be in both splits."""
    least, most = classes, images - classes
    if not least <= validation <= most:
        lacking = "train" if validation > most else "validation"
        raise ConfigError(
            f"data.validation={validation} leaves no {lacking} split of the {images:,} images and {classes:,} classes "
            f"of {name}: choose from {least:,} to {most:,}"
        )
    return validation


def share_of_each(counts: Tensor, validation: int, name: str) -> Tensor:
    """How many images of each class are held out, `validation` in all: the same share of each as nearly as can be, at
    least one and never all. counts: images of each class [K].
    """
    images = int(counts.sum())
    wanted = counts * (check_validation(validation, images, len(counts), name) / images)
    held = wanted.floor().long().clamp(min=1).minimum(counts - 1)
    while missing := validation - int(held.sum()):
        step = 1 if missing > 0 else -1
        possible = (held < counts - 1) if step > 0 else (held > 1)
        held[torch.where(possible, step * (wanted - held), -torch.inf).argmax()] += step
    return held


def subset(labels: Tensor, count: int | None) -> Tensor:
    """Which of the images [N] a training on `count` of them shows, [count] in their order; None: all.

    Each class is shuffled by a stream of its own; then those come first that have the smallest share of their class
    before them. So classes keep their shares, every one has an image, and few images are a part of more.
    """
    if count is None:
        return torch.arange(len(labels))
    classes = labels.unique().tolist()
    if not len(classes) <= count <= len(labels):
        raise ConfigError(
            f"data.train={count} must lie in [{len(classes)}, {len(labels)}]: at least one image of each class, at most "
            "all that are not held out for validation"
        )
    before = torch.empty(len(labels), dtype=torch.float64)
    for label in classes:
        rows = (labels == label).nonzero().flatten()
        shuffled = rows[torch.randperm(len(rows), generator=streams.generator("split", "subset", label))]
        before[shuffled] = torch.arange(len(rows), dtype=torch.float64) / len(rows)
    return before.argsort(stable=True)[:count].sort().values


def last_of_each(labels: Tensor, held: Tensor, classes: Sequence[str], name: str) -> Tensor:
    """Which of the images [N] are held out: the last held[k] of every class k.

    classes: their names. Raises ConfigError where a class would be missing in one of the splits.
    """
    rows = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(held.tolist()):
        places = (labels == label).nonzero().flatten()
        if not 0 < count < len(places):
            raise ConfigError(
                f"class {classes[label]} of {name} has {len(places)} image{'' if len(places) == 1 else 's'}: too few to "
                f"hold out {max(1, count)}; add some, remove the class, or choose another data.validation"
            )
        rows[places[-count:]] = True
    return rows


def check(data: Dataset, name: str) -> Dataset:
    """The data set itself. Raises ConfigError where counts differ, labels are out of range, classes have no image."""
    for split_name in ("train", "validation", "test"):
        split = getattr(data, split_name)
        where = f"the {split_name} split of {name}"
        if len(split.images) != len(split.labels):
            raise ConfigError(f"{where} has {len(split.images)} images but {len(split.labels)} labels")
        low, high = (int(split.labels.min()), int(split.labels.max())) if len(split) else (0, 0)
        if low < 0 or high >= data.classes:
            raise ConfigError(f"{where} has labels from {low} to {high}, not from 0 to {data.classes - 1}")
        absent = (torch.bincount(split.labels, minlength=data.classes) == 0).nonzero().flatten().tolist()
        if absent:
            told = ", ".join(map(str, absent[:5])) + (" ..." if len(absent) > 5 else "")
            remedy = "" if split_name == "test" else "; another data.validation may help"
            raise ConfigError(f"{where} has no image of {len(absent)} of {data.classes} classes: {told}{remedy}")
    return data
