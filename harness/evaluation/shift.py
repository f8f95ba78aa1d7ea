"""Evaluation on corrupted test images: the official files where they are, else the built-in suite.

In a run's record, under `shift`, where `evaluate.shift=true`:

    source                        "official" or "builtin" (see harness.corruptions: the two do not compare)
    student, teacher, ensemble    {acc, nll, brier, ece: means over types and severities, by_type: {type: the same}};
                                  the four extra types of the official files are in by_type only

Official files lie in `data.root`: CIFAR-10-C and CIFAR-100-C hold labels.npy and TYPE.npy [5 N, 32, 32, 3], severity
by severity; Tiny-ImageNet-C holds TYPE/SEVERITY/WNID/*.JPEG (Hendrycks and Dietterich 2019).
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.config import ConfigError
from harness.evaluation import corruptions, metrics
from harness.store import provenance
from harness.store.arrays import KeptArray
from harness.store.findings import Remember
from harness.store.identity import in_path
from harness.training.data import Split
from harness.training.data.archives import root_folder
from harness.training.data.files import FileImages
from harness.training.data.images import read_images
from harness.training.data.listing import LeftOut, list_images
from harness.training.data.tiny_imagenet import FOLDER, SIZE, read_lines
from harness.training.device import device_kind
from harness.training.inference import predict
from harness.training.ranks import ALONE, Ranks
from methods.method import Teachers

ARRAYS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
TREES = {"tiny_imagenet": "Tiny-ImageNet-C"}
EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")  # official, but kept for validation by their authors
METRICS = ("acc", "nll", "brier", "ece")
SEVERITIES = corruptions.SEVERITIES
LIMIT_BYTES = 8 << 30  # of a suite that is kept: that of Tiny-ImageNet is 6 GB

Logits = dict[str, np.ndarray]  # by who gave them


class Shift:
    """Corrupted versions of one test split, a sequence. Raises ConfigError for official files that are not what they
    should be.

    bank: the folder where the built-in suite's images are kept, for all students of the test split; `say` tells the user
    where that fails.
    """

    def __init__(self, config: dict[str, Any], test: Split, bank: Path, say: Callable[[str], None]):
        self.name, self.test, self.bank, self.say = config["name"], test, bank, say
        root = root_folder(config["root"])
        folder = {**ARRAYS, **TREES}.get(self.name)
        self.folder = root / folder if folder and (root / folder).is_dir() else None
        self.source = "official" if self.folder else "builtin"
        self.types = [kind.__name__ for kind in corruptions.STRENGTHS]
        if self.folder:
            self.types = check_arrays(self.folder, test) if self.name in ARRAYS else check_tree(self.folder)
            self.root = root

    def __len__(self) -> int:
        return len(self.types) * len(SEVERITIES)

    def __getitem__(self, number: int) -> tuple[str, int, Split]:
        """Type, severity and images of one version."""
        kind, severity = list(itertools.product(self.types, SEVERITIES))[number]
        if self.folder:
            split = (self.read_array if self.name in ARRAYS else self.read_tree)(kind, severity)
        else:
            split = Split(self.make(number) if self.kept is None else self.kept[number], self.test.labels)
        return kind, severity, split.to(self.test.images.device)

    def make(self, number: int) -> Tensor:
        """The images [N, C, H, W] uint8 of one version of the built-in suite."""
        return corruptions.corrupt(self.test.images, *list(corruptions.suite())[number], self.name)

    @functools.cached_property
    def kept(self) -> Tensor | None:
        """The whole suite, from the bank; None where it is too large to be kept."""
        images = self.test.images
        if isinstance(images, FileImages) or len(self) * images.nbytes > LIMIT_BYTES:
            return None
        about = [self.name, sha256(images.cpu().numpy().tobytes()).hexdigest(), device_kind(images.device)]
        key = sha256(json.dumps(about).encode()).hexdigest()[:12]
        origin = [provenance.code(), *about]  # of other code they are made anew, in the same place

        def fill(found: np.ndarray) -> None:
            for number, place in enumerate(found):
                place[:] = self.make(number).cpu().numpy()

        path = self.bank / "corrupted" / f"{in_path(self.name)}-{key}.npy"
        array = KeptArray(path, "corrupted test images", (len(self), *images.shape), np.uint8, origin, fill, self.say)
        return torch.from_numpy(np.asarray(array.get()))

    def counts(self, kind: str) -> bool:
        """Whether a type is one of those that published means are over."""
        return self.folder is None or kind not in EXTRA

    def files(self) -> list[tuple[str, int, int]]:
        """Name, size and time of every official array, or of every folder of a type and severity."""
        if self.folder is None:
            return []
        found = sorted(self.folder.glob("*.npy" if self.name in ARRAYS else "*/*"))
        return [(str(path.relative_to(self.folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in found]

    def read_array(self, kind: str, severity: int) -> Split:
        rows = slice((severity - 1) * len(self.test), severity * len(self.test))
        images = np.load(self.folder / f"{kind}.npy", mmap_mode="r")[rows]
        labels = np.load(self.folder / "labels.npy")[rows]
        channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return Split(torch.from_numpy(channels_first), torch.from_numpy(labels.astype(np.int64)))

    def read_tree(self, kind: str, severity: int) -> Split:
        files: list[Path] = []
        labels: list[int] = []
        left_out = LeftOut()
        for label, wnid in enumerate(read_lines(self.root / FOLDER, "wnids.txt")):
            place = self.folder / kind / str(severity) / wnid
            found = list_images(place, left_out) if place.is_dir() else []
            if not found:
                raise ConfigError(f"{place} has no images")
            files += found
            labels += [label] * len(found)
        if left_out.total():
            self.say(f"{self.folder / kind / str(severity)}: {left_out}")
        return Split(read_images(files, SIZE), torch.tensor(labels))


def check_arrays(folder: Path, test: Split) -> list[str]:
    """The types of a folder of .npy files, by name."""
    shape = (len(SEVERITIES) * len(test), *test.images.shape[2:], test.images.shape[1])
    files = sorted(folder.glob("*.npy"))
    types = [path.stem for path in files if path.stem != "labels"]
    if not types or len(types) == len(files):
        raise ConfigError(f"{folder} lacks {'labels.npy' if types else 'TYPE.npy files'}")
    for path in files:
        expected = shape[:1] if path.stem == "labels" else shape
        if not path.is_file():  # a named pipe would be waited for
            raise ConfigError(f"{path} is no file")
        try:
            found = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        if found.shape != expected:
            raise ConfigError(f"{path} is an array of {found.shape}, not of {expected}")
        if path.stem == "labels":
            if not np.array_equal(found, np.tile(test.labels.cpu().numpy(), len(SEVERITIES))):
                raise ConfigError(f"{path} has other labels than the test images, in their order, at each severity")
        elif found.dtype != np.uint8:
            raise ConfigError(f"{path} is an array of {found.dtype}, not of bytes")
    return types


def check_tree(folder: Path) -> list[str]:
    """The types of a folder of images, by name."""
    types = sorted(path.name for path in folder.iterdir() if path.is_dir())
    for kind in types:
        for severity in SEVERITIES:
            if not (folder / kind / str(severity)).is_dir():
                raise ConfigError(f"{folder / kind / str(severity)} is missing")
    if not types:
        raise ConfigError(f"{folder} has no folder of corrupted images")
    return types


def predict_student(student: nn.Module, split: Split, ranks: Ranks = ALONE) -> Logits:
    """Logits [N, K] of the student."""
    return {"student": predict(student, split, ranks=ranks).cpu().numpy()}


def predict_teachers(teachers: Teachers, split: Split, ranks: Ranks = ALONE) -> Logits:
    """Logits [N, K] of teacher 0, and the log-probabilities of all together."""
    members = np.stack([predict(network, split, ranks=ranks).cpu().numpy() for network in teachers.networks])
    return {"teacher": members[0], "ensemble": metrics.average(members)}


def evaluate(
    shift: Shift, student: nn.Module, teachers: Teachers, remember: Remember, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """The record's `shift`; the teachers' part is computed for the first student only."""
    found = {"source": shift.source, **measure(shift, partial(predict_student, student), ranks)}
    if len(teachers):
        found |= remember("shift", shift.files(), lambda: measure(shift, partial(predict_teachers, teachers), ranks))
    return found


def measure(shift: Shift, predict_split: Callable[[Split], Logits], ranks: Ranks = ALONE) -> dict[str, Any]:
    """Means of the metrics, in all and by type, of whoever predicts; each rank sees some of the versions."""

    def judge(number: int) -> tuple[str, dict[str, dict[str, float]]]:
        kind, _, split = shift[number]
        labels = split.labels.cpu().numpy()
        return kind, {who: metrics.evaluate(logits, labels, 1.0) for who, logits in predict_split(split).items()}

    values: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for kind, judged in ranks.each(judge, range(len(shift))):
        for who, row in judged.items():
            values[who][kind].append(row)
    found = {}
    for who, by_type in values.items():
        means = {kind: average(rows) for kind, rows in by_type.items()}
        counted = [row for kind, row in means.items() if shift.counts(kind)]
        found[who] = {**average(counted), "by_type": means}
    return found


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in METRICS}
