"""Images that stay in their files: decoded by worker processes when they are asked for, in the place of one tensor.

A split of such images goes wherever it is read in slices or from front to back: evaluation, batch-norm re-estimation,
diagnostics, corruptions. Workers read the same pixels however many they are.
"""

from __future__ import annotations

import copy
import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import ConfigError
from harness.runtime.interruption import SIGNALS
from harness.training.data.images import look
from harness.training.data.preparation import middle

MARGIN = 224 / 256  # of a scaled image's shorter side, what the centre crop keeps: as ImageNet is evaluated
MOST_WORKERS = 16
READ_BATCH = 100
PREFETCH = 4  # batches a worker

Key = tuple[int, int]  # epoch and row
View = Callable[[Image.Image, Key], Tensor]


class FileImages:
    """RGB images in files as a tensor [N, 3, size, size] of uint8 that nobody holds: scaled, then the centre.

    Batches come on `device`, on CUDA in channels_last. workers: how many processes decode, 0 for this one; None: one a
    core of the job, at most MOST_WORKERS.
    """

    def __init__(self, files: Sequence[Path], size: int, workers: int | None):
        # One block of bytes, which forked workers share; a list of paths each of them would come to copy.
        self.names = np.array([os.fsencode(file) for file in files])
        self.shape = torch.Size((len(files), 3, size, size))
        self.resize = round(size / MARGIN)  # the shorter side, before the centre is cut out
        self.workers = count_cores() if workers is None else workers
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

    def read(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each part, a list of rows."""
        keys = [[(0, row) for row in part.tolist()] for part in parts]
        loader = self.loader(Centre(self.resize, self.shape[-1]), keys, workers=self.workers if len(keys) > 1 else 0)
        return on_device(loader, self.device)

    def loader(self, view: View, batches: Iterable[list[Key]], workers: int, persistent: bool = False) -> DataLoader:
        """Batches [B, 3, size, size] of views of the images listed in `batches`."""
        return DataLoader(
            Decoder(self.names, view),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            persistent_workers=persistent and workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # it would else draw from the stream of the network's layers
        )

    def fingerprint(self) -> bytes:
        """Of every file's class, name and size in bytes; their pixels would take as long to read as an epoch."""
        paths = [Path(os.fsdecode(name)) for name in self.names]
        digest = hashlib.sha256(repr(tuple(self.shape)).encode())
        with ThreadPoolExecutor(MOST_WORKERS) as pool:
            for path, size in zip(paths, pool.map(os.path.getsize, paths), strict=True):
                digest.update(f"{path.parent.name}/{path.name} {size}\n".encode())
        return digest.digest()


class Centre:
    """How an image is evaluated: scaled, then the centre."""

    def __init__(self, resize: int, size: int):
        from torchvision.transforms.v2.functional import pil_to_tensor

        self.resize, self.size, self.as_tensor = resize, size, pil_to_tensor

    def __call__(self, image: Image.Image, key: Key) -> Tensor:
        return self.as_tensor(middle(image, self.resize, self.size))


class Decoder(Dataset):
    """Views of files. An error is an item like any other: raised in a worker, it would arrive as a page of text."""

    def __init__(self, names: np.ndarray, view: View):
        self.names, self.view = names, view

    def __getitem__(self, key: Key) -> Tensor | ConfigError:
        _, row = key
        try:
            return look(Path(os.fsdecode(self.names[row])), partial(self.view, key=key))
        except ConfigError as error:
            return error


def collate(items: list[Tensor | ConfigError]) -> Tensor | ConfigError:
    errors = [item for item in items if isinstance(item, ConfigError)]
    return errors[0] if errors else torch.stack(items)


def on_device(loader: DataLoader, device: torch.device) -> Iterator[Tensor]:
    """Batches on the device. Raises ConfigError, naming the file, for an image that could not be read."""
    for images in loader:
        if isinstance(images, ConfigError):
            raise images
        images = images.to(device, non_blocking=True)
        yield images.contiguous(memory_format=torch.channels_last) if device.type == "cuda" else images


def ignore_signals(worker: int) -> None:
    """A request to stop is the main process's: it finishes its step, and needs its workers until then."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def count_cores() -> int:
    """Cores of this job, at most MOST_WORKERS."""
    given = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(given or usable or 1, MOST_WORKERS)
