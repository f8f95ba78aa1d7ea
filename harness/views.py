"""A teacher's answers for every view of every train image, kept in the bank.

Crop and flip make only (2p + 1)^2 x 2 views of an image (162 with p = 4), so that a teacher's logits for all of them
can be computed once and then be looked up: by every run, of every method that shows its teachers the views themselves.
A perturbed image is no view, and its teachers are asked as ever.

BANK/TEACHER/views-KEY.npy holds float16 [N * V, K], logits less their maximum, beside a small .json with its checksum.
KEY stands for the train split and its augmentation. Written under another name first, so that a part is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.claim import Claim
from harness.data.augmentation import Augmentation
from harness.progress import Console, duration
from harness.record import write_atomically
from harness.training import Interrupted
from methods.method import Method, Teachers, at_least_float32

BATCH = 1000
LIMIT_BYTES = 8 << 30  # of all teachers together, for teachers.cache=auto
CHUNK_BYTES = 64 << 20


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


def is_worth_it(cache: str, method: Method, epochs: int, augmentation: Augmentation | None, classes: int) -> bool:
    """Whether a run looks its teachers' answers up, given teachers.cache.

    auto: where the method shows its teachers the drawn views, there are no more of these than epochs (building them
    then costs no more than one run asks for), and they fit.
    """
    perturbs = type(method).inputs is not Method.inputs
    if cache == "none" or perturbs or augmentation is None or method.teachers == 0:
        return False
    size = 2 * len(augmentation.padded) * augmentation.views * classes * (method.teachers or 1)
    return cache == "views" or (augmentation.views <= epochs and size <= LIMIT_BYTES)


def name(fingerprint: str, augmentation: Augmentation) -> str:
    """The file name of a teacher's views."""
    key = json.dumps([fingerprint, augmentation.padding, augmentation.flip])
    return f"views-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"


def load(path: Path, shape: tuple[int, int]) -> np.memmap | None:
    """The answers of a file, mapped into memory; None where it is missing, or is not what its checksum says."""
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        answers = np.load(path, mmap_mode="c")  # torch has no read-only tensors; nothing writes
    except (OSError, ValueError, EOFError):
        return None
    if answers.shape != shape or answers.dtype != np.float16 or checksum(answers) != about.get("crc32"):
        return None
    return answers


def checksum(answers: np.ndarray) -> int:
    found, flat = 0, answers.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), CHUNK_BYTES):
        found = zlib.crc32(flat[start : start + CHUNK_BYTES], found)
    return found


def load_or_build(
    path: Path, network: nn.Module, augmentation: Augmentation, classes: int, console: Console, stop: Callable[[], bool]
) -> Tensor:
    """A teacher's answers [N * V, K] in float16, on the CPU. Raises Interrupted where `stop` says so.

    Of several processes one builds, and the others wait for it. A damaged file is built anew.
    """
    shape = (len(augmentation.padded) * augmentation.views, classes)
    answers = load(path, shape)
    if answers is None:
        with Claim(path.parent, patient=True):
            answers = load(path, shape)  # by now another one may have built it
            if answers is None:
                if path.exists():
                    console.say(f"{path} is damaged or incomplete; it is built anew")
                build(path, network, augmentation, classes, console, stop)
                answers = load(path, shape)
    return torch.from_numpy(np.asarray(answers))


def build(
    path: Path, network: nn.Module, augmentation: Augmentation, classes: int, console: Console, stop: Callable[[], bool]
) -> None:
    """Ask a teacher about every view of every image and write its answers."""
    started, count = time.monotonic(), len(augmentation.padded)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        found = np.lib.format.open_memmap(scratch, "w+", np.float16, (count * augmentation.views, classes))
        by_image = found.reshape(count, augmentation.views, classes)
        device = augmentation.padded.device
        with torch.inference_mode():
            for v in range(augmentation.views):
                if stop():
                    raise Interrupted("stopped while the teachers' views were computed")
                for rows in torch.arange(count, device=device).split(BATCH):
                    logits = at_least_float32(network(augmentation.view(v, rows)))
                    logits -= logits.amax(1, keepdim=True)
                    by_image[rows[0].item() : rows[-1].item() + 1, v] = logits.half().cpu().numpy()
        found.flush()
        about: dict[str, Any] = {"crc32": checksum(found), "seconds": time.monotonic() - started}
        del found, by_image
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    write_atomically(path.with_suffix(".json"), json.dumps(about))
    console.say(f"{path}: {augmentation.views} views of {count:,} images in {duration(about['seconds'])}")
