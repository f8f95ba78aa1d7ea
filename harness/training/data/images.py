"""Image files into one tensor, by the rules of preparation.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.config import ConfigError
from harness.training.data import preparation

PART = 16  # images that a thread reads in one go: of small ones a request each would be a fifth of the work

T = TypeVar("T")


def look(path: Path, view: Callable[[Image.Image], T]) -> T:
    """What a view makes of an image file, in colour. Raises ConfigError, naming the file, where that is nothing."""
    try:
        with preparation.naming(path):
            return view(preparation.decode(path))
    except preparation.Unreadable as error:
        raise ConfigError(str(error)) from error


def as_array(image: Image.Image, size: int, resize: bool) -> np.ndarray:
    """An image as [3, size, size] uint8; `resize` scales its shorter side to `size` and crops the centre."""
    if resize:
        image = preparation.middle(image, size, size)
    if image.size != (size, size):
        raise preparation.Unreadable(f"is an image of {image.size[0]}x{image.size[1]}, not of {size}x{size}")
    return channels_first(image)


def channels_first(image: Image.Image) -> np.ndarray:
    """[3, H, W] uint8 of an image in colour."""
    return np.asarray(image).transpose(2, 0, 1)


def read_images(paths: Sequence[Path], size: int, resize: bool = False) -> Tensor:
    """[N, 3, size, size] uint8 of image files, in their order. Raises ConfigError, naming the file, for one that is no
    whole image, or without `resize` not of that size.
    """
    images = np.empty((len(paths), 3, size, size), np.uint8)
    fit = partial(as_array, size=size, resize=resize)

    def read(start: int) -> None:
        for row in range(start, min(start + PART, len(paths))):
            images[row] = look(paths[row], fit)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(0, len(paths), PART)):
            pass  # a reader's error comes out here
    return torch.from_numpy(images)
