"""Image files into one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.config import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff")


def open_image(path: Path) -> Image.Image:
    """An image file in colour, whole. Raises ConfigError, naming the file, where it is none."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except Exception as error:  # whatever a decoder makes of somebody's file
        raise ConfigError(f"{path} cannot be read as an image: {str(error) or type(error).__name__}") from error


def read_image(path: Path, size: int, resize: bool) -> np.ndarray:
    """An image file as [3, size, size] uint8; `resize` scales its shorter side to `size` and crops the centre.

    Raises ConfigError, naming the file, where it is no whole image, or without `resize` not of that size.
    """
    image = open_image(path)
    if resize:
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    if image.size != (size, size):
        raise ConfigError(f"{path} is an image of {image.size[0]}x{image.size[1]}, not of {size}x{size}")
    return np.asarray(image).transpose(2, 0, 1)


def read_images(paths: Sequence[Path], size: int, resize: bool = False) -> Tensor:
    """[N, 3, size, size] uint8 of image files, in their order; see `read_image`."""
    images = np.empty((len(paths), 3, size, size), np.uint8)

    def read(row: int) -> None:
        images[row] = read_image(paths[row], size, resize)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(len(paths))):
            pass  # a reader's error comes out here
    return torch.from_numpy(images)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
