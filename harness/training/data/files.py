"""Images that stay in their files: decoded by worker processes when they are asked for, in the place of one tensor.

A split of such images goes wherever it is read in slices or from front to back: evaluation, batch-norm re-estimation,
diagnostics, corruptions. Workers read the same pixels however many they are.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.runtime import host
from harness.training.data.contents import hash_files
from harness.training.data.decoders import Decoders, Item, Key, View
from harness.training.data.images import channels_first
from harness.training.data.preparation import middle
from harness.training.data.transfer import send

MARGIN = 224 / 256  # of a scaled image's shorter side, what the centre crop keeps: as ImageNet is evaluated
MOST_WORKERS = 16
READ_BATCH = 100

LIVING: weakref.WeakValueDictionary[int, Decoders] = weakref.WeakValueDictionary()  # by their number of workers


class FileImages:
    """RGB images in files as a tensor [N, 3, size, size] of uint8 that nobody holds: scaled, then the centre.

    Batches come on `device`, on CUDA in channels_last. workers: how many processes decode, 0 for this one; None: one a
    core of the job, at most MOST_WORKERS. Splits of as many workers share them.
    """

    def __init__(self, files: Sequence[Path], size: int, workers: int | None):
        self.names = np.array(
            [os.fsencode(file) for file in files]
        )  # one block, where a list would be ten times as large
        self.shape = torch.Size((len(files), 3, size, size))
        self.resize = round(size / MARGIN)  # the shorter side, before the centre is cut out
        self.workers = min(host.cores(), MOST_WORKERS) if workers is None else workers
        self.decoders = LIVING.setdefault(self.workers, Decoders(self.workers))
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> FileImages:
        moved = copy.copy(self)
        moved.device = torch.device(device)
        return moved

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """The images of a slice or of an index, decoded."""
        return torch.cat(list(self.read(torch.arange(len(self))[rows].split(READ_BATCH))))

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, so many at a time."""
        return self.read(torch.arange(len(self)).split(batch_size))

    def read(self, parts: Iterable[Tensor], view: View | None = None, epoch: int = 0) -> Iterator[Tensor]:
        """Views [B, 3, size, size] of the images of each part, a list of rows, on the device; None: the centre.

        Raises ConfigError, naming the file.
        """
        view = view or Centre(self.resize, self.shape[-1])
        batches = (self.items(part.numpy(), epoch) for part in parts)
        for images in self.decoders.read(view, self.shape[1:], batches):
            on_device = send(torch.from_numpy(images), self.device)
            yield on_device.contiguous(memory_format=torch.channels_last) if on_device.is_cuda else on_device

    def items(self, rows: np.ndarray, epoch: int) -> list[Item]:
        return [(name, (epoch, row)) for name, row in zip(self.names[rows].tolist(), rows.tolist(), strict=True)]

    def hash(self, find: Callable[[bytes], bytes], named: bool = True) -> bytes:
        """A hash of shape and files, by what is found out about each (see contents.py), and where it lies in the set."""
        start = len(os.path.commonpath(self.names.tolist())) + 1

        def find_named(name: bytes) -> bytes:
            return name[start:] + b" " + find(name)

        return hash_files(repr(tuple(self.shape)).encode(), self.names.tolist(), find_named if named else find)


class Centre:
    """How an image is evaluated: scaled, then the centre."""

    def __init__(self, resize: int, size: int):
        self.resize, self.size = resize, size

    def __call__(self, image: Image.Image, key: Key) -> np.ndarray:
        return channels_first(middle(image, self.resize, self.size))
