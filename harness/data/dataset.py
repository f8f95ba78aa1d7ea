"""A data set as whole tensors of raw pixels on one device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images [N, C, H, W] uint8 and labels [N] int64, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three splits and what a network must know of them."""

    classes: int
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    sd: tuple[float, ...]
    train: Split
    validation: Split
    test: Split

    def to(self, device: torch.device | str) -> Dataset:
        train, validation, test = (split.to(device) for split in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)

    def fingerprint(self) -> str:
        """A hash of every pixel, label and split: equal where two runs saw the same data."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for tensor in (split.images, split.labels):
                digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]
