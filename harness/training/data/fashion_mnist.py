"""Fashion-MNIST: 70,000 grey 28x28 images of ten kinds of clothing (Xiao, Rasul, Vollgraf 2017).

Found in ROOT/FashionMNIST/raw, where torchvision puts it, or in the Debian package `dataset-fashion-mnist`.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data.archives import Archive, obtain, root_folder
from harness.training.data.dataset import Dataset, Split, hold_out

VALIDATION = 5000
MEAN, SD = (0.2860,), (0.3530,)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_MD5 = {  # the same content as upstream's, compressed anew
    "train-images-idx3-ubyte.gz": "cf8536b0aa1a6ac5fa3f23001093305c",
    "train-labels-idx1-ubyte.gz": "10bea18fdb374794d4bb42e356e600c9",
    "t10k-images-idx3-ubyte.gz": "f78720b4224f21cce2f2ccf2d7a94c9a",
    "t10k-labels-idx1-ubyte.gz": "0d30e22e447f3c33dab9ed536400ac01",
}


def archives() -> list[Archive]:
    """Train images, train labels, test images, test labels."""
    return [
        Archive(f"FashionMNIST/raw/{name}", FashionMNIST.mirrors[0] + name, (md5, DEBIAN_MD5[name]))
        for name, md5 in FashionMNIST.resources
    ]


def load(config: dict[str, Any], console: Console) -> Dataset:
    """55,000 train, 5,000 validation and 10,000 test images, in file order."""
    hint = ", or on Debian `apt-get install dataset-fashion-mnist`"
    root = root_folder(config["root"])
    paths = obtain(archives(), "fashion_mnist", root, config["download"], console, [DEBIAN], hint)
    images, labels, test_images, test_labels = map(read_idx, paths)
    train, validation = hold_out(images[:, None], labels.long(), config["validation"] or VALIDATION, "fashion_mnist")
    return Dataset(
        10, MEAN, SD, train, validation, Split(test_images[:, None], test_labels.long()), FashionMNIST.classes
    )


def read_idx(path: Path) -> Tensor:
    """A gzipped IDX file of bytes as a uint8 tensor of its shape. Raises ConfigError where it is not one."""
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if zeros or kind != 8:
            raise ValueError("no IDX file of bytes")
        return torch.from_numpy(values.reshape(shape).copy())
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
