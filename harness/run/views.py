"""A teacher's answers for every view of every train image, kept in the bank.

Crop and flip make only (2p + 1)^2 x 2 views of an image (162 with p = 4), so that a teacher's logits for all of them
can be computed once and then be looked up: by every run, of every method that shows its teachers the views themselves.
A perturbed image is no view, and its teachers are asked as ever.

BANK/TEACHER/views-KEY.npy holds float16 [N * V, K], logits less their maximum. KEY stands for the train split and its
augmentation; a small .json beside it has its checksum, and the code and weights that answered: where these are others
now, it is built anew. Written under another name first, so that a part is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from harness.runtime.console import Console, duration
from harness.runtime.interruption import Interrupted, Stop
from harness.store.claim import Claim, Claimed
from harness.store.files import read_json, write_json
from harness.store.findings import origin
from harness.training.data.augmentation import Augmentation
from methods.method import Method, Teachers, at_least_float32

BATCH = 1000
LIMIT_BYTES = 8 << 30  # of all teachers together, for teachers.cache=auto
CHUNK_BYTES = 64 << 20


class Beside(TypedDict):
    """What stands beside a file of answers: their checksum, what they are of (see findings.origin), seconds it took."""

    crc32: int
    origin: list[Any]
    seconds: float


class CachedTeachers(Teachers):
    """Teachers that look their answers up where they are asked about views as they were drawn."""

    def __init__(self, networks: Sequence[nn.Module], answers: Sequence[Tensor]):
        super().__init__(networks)
        self.answers = answers  # M of [N * V, K]
        self.images: Tensor | None = None
        self.views: Tensor | None = None

    def expect(self, images: Tensor, views: Tensor | None) -> None:
        self.images, self.views = images, views

    def __call__(self, images: Tensor) -> Tensor:
        if images is not self.images or self.views is None:
            return super().__call__(images)
        return torch.stack([answers[self.views] for answers in self.answers]).float()


def is_worth_it(cache: str, method: Method, epochs: int, images: int, views: int, classes: int) -> bool:
    """Whether a run looks its teachers' answers up, given teachers.cache and the views of each of its train images.

    auto: where the method shows its teachers the drawn views, there are no more of these than epochs (building them
    then costs no more than one run asks for), and they fit.
    """
    perturbs = type(method).inputs is not Method.inputs
    if cache == "none" or perturbs or method.teachers == 0:
        return False
    size = 2 * images * views * classes * (method.teachers or 1)
    return cache == "views" or (views <= epochs and size <= LIMIT_BYTES)


@dataclass
class ViewCache:
    """Answers for the views of one train split, of `fingerprint`. `stop` is asked whether to leave off building."""

    augmentation: Augmentation
    classes: int
    fingerprint: str
    console: Console
    stop: Stop

    def answers(self, teacher: Path, network: nn.Module) -> Tensor:
        """The answers [N * V, K] in float16, on the CPU, of the network in a teacher's directory. Raises Interrupted.

        Of several processes one builds them, and the others wait. A damaged file is built anew.
        """
        path, about = teacher / self.name(), origin([teacher], self.fingerprint)
        answers = self.load(path, about)
        try:
            if answers is None:
                with Claim(teacher, until=self.stop):
                    answers = self.load(path, about)  # by now another one may have built it
                    if answers is None:
                        if path.exists():
                            self.console.say(f"{path} is damaged, or of other code or weights; it is built anew")
                        self.build(path, network, about)
                        answers = self.load(path, about)
        except Claimed as claimed:
            raise Interrupted("stopped while another process computed the teachers' views") from claimed
        except OSError as error:  # such as somebody else's bank, or a full disk
            self.console.say(f"the teachers' views cannot be kept in the bank, this run keeps its own: {error}")
        if answers is None:  # the same numbers: what a run learns from must not depend on a disk
            answers = np.empty(self.shape(), np.float16)
            self.fill(answers, network)
        return torch.from_numpy(np.asarray(answers))

    def name(self) -> str:
        """The file name of a teacher's views."""
        key = json.dumps([self.fingerprint, self.augmentation.padding, self.augmentation.flip])
        return f"views-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"

    def load(self, path: Path, about: list[Any]) -> np.memmap | None:
        """A file mapped into memory; None where it is missing, or is not what stands beside it."""
        if not path.is_file():  # a named pipe would be waited for
            return None
        try:
            beside = read_json(path.with_suffix(".json"), Beside)
            answers = np.load(path, mmap_mode="c")  # torch has no read-only tensors; nothing writes
        except Exception:  # noqa: BLE001  whatever numpy makes of it: it is built anew
            return None
        known = isinstance(answers, np.memmap) and answers.shape == self.shape() and answers.dtype == np.float16
        if not known or beside is None or beside["origin"] != about:
            return None
        return answers if checksum(answers) == beside["crc32"] else None

    def build(self, path: Path, network: nn.Module, about: list[Any]) -> None:
        """Ask a teacher about every view of every image and write its answers. Raises OSError."""
        started = time.monotonic()
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            found = np.lib.format.open_memmap(scratch, "w+", np.float16, self.shape())
            self.fill(found, network)
            found.flush()
            beside = {"crc32": checksum(found), "origin": about, "seconds": time.monotonic() - started}
            del found
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), beside)
        count = len(self.augmentation.padded)
        self.console.say(
            f"{path}: {self.augmentation.views} views of {count:,} images in {duration(beside['seconds'])}"
        )

    def fill(self, found: np.ndarray, network: nn.Module) -> None:
        """Write a teacher's answers into an array [N * V, K] of float16. Raises Interrupted."""
        count, views = len(self.augmentation.padded), self.augmentation.views
        every = torch.arange(count, device=self.augmentation.padded.device)
        by_image = found.reshape(count, views, self.classes)
        with torch.inference_mode():
            for v in range(views):
                if self.stop():
                    raise Interrupted("stopped while the teachers' views were computed")
                for start in range(0, count, BATCH):
                    rows = slice(start, start + BATCH)
                    logits = at_least_float32(network(self.augmentation.view(v, every[rows])))
                    logits -= logits.amax(1, keepdim=True)
                    by_image[rows, v] = logits.half().cpu().numpy()

    def shape(self) -> tuple[int, int]:
        """N * V, K."""
        return len(self.augmentation.padded) * self.augmentation.views, self.classes


def checksum(answers: np.ndarray) -> int:
    found, flat = 0, answers.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), CHUNK_BYTES):
        found = zlib.crc32(flat[start : start + CHUNK_BYTES], found)
    return found
