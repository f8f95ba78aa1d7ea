"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32 (Krizhevsky 2009), read by torchvision.

Found in ROOT/cifar-10-batches-py and ROOT/cifar-100-python, or unpacked there from the published tar file.
"""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data.archives import Archive, obtain, root_folder, unpack, verify
from harness.training.data.dataset import Dataset, Split, hold_out

VALIDATION = 5000
READERS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
CLASSES = {"cifar10": 10, "cifar100": 100}
MEAN = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5072, 0.4866, 0.4410)}
SD = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2760)}


def load(config: dict[str, Any], console: Console) -> Dataset:
    """45,000 train, 5,000 validation and 10,000 test images, in file order, as published results have them."""
    name = config["name"]
    reader, root = READERS[name], root_folder(config["root"])
    folder = root / reader.base_folder
    if not folder.exists():
        archive = Archive(reader.filename, reader.url, (reader.tgz_md5,))
        (packed,) = obtain([archive], name, root, config["download"], console)
        unpack(packed, folder, console)
    for file, md5 in [*reader.train_list, *reader.test_list, [reader.meta["filename"], reader.meta["md5"]]]:
        if not (folder / file).exists():
            raise ConfigError(f"{folder / file} is missing: remove {folder} to unpack or download it anew")
        verify(folder / file, [md5])  # torchvision would not say which file is damaged
    images, labels, names = read(reader, root, True)
    train, validation = hold_out(images, labels, config["validation"] or VALIDATION, name)
    test = Split(*read(reader, root, False)[:2])
    return Dataset(CLASSES[name], MEAN[name], SD[name], train, validation, test, names)


def read(reader: type[CIFAR10], root: Any, train: bool) -> tuple[Tensor, Tensor, list[str]]:
    """Images [N, 3, 32, 32] uint8, labels [N], and names of the classes."""
    try:
        found = reader(root, train=train)
    except (RuntimeError, pickle.UnpicklingError, KeyError, EOFError, ValueError) as error:
        raise ConfigError(f"{root / reader.base_folder} cannot be read: {type(error).__name__}: {error}") from error
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(found.targets), found.classes
