"""A teacher's answers for every view of every train image, kept in the bank.

Crop and flip make only (2p + 1)^2 x 2 views of an image (162 with p = 4), so that a teacher's logits for all of them
can be computed once and then be looked up: by every run, of every method that asks its teachers about the views
themselves. A perturbed image is no view, and its teachers are asked as ever; of the pair that it is perturbed by, one
is asked about the view itself.

BANK/TEACHER/views-KEY.npy holds float16 [N * V, K], logits less their maximum. KEY stands for the train split, its
augmentation and the kind of device that answered; see `store/arrays.py` for what else it depends on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness.runtime.console import Console, duration
from harness.runtime.interruption import Interrupted, Stop
from harness.store.arrays import KeptArray
from harness.store.claim import Claimed
from harness.store.findings import origin
from harness.training.data.augmentation import Augmentation
from harness.training.data.batches import Views
from harness.training.data.transfer import send
from harness.training.inference import batch_for
from methods.method import Teachers, at_least_float32

LIMIT_BYTES = 8 << 30  # of all teachers together, for teachers.cache=auto
SHARE = 0.5  # of a GPU's free memory, at most: training needs the rest
PIECE = 64  # batches that are copied to the host together


class CachedTeachers(Teachers):
    """Teachers that look their answers up where they are asked about views as they were drawn.

    answers: M of [N * V, K], on the device; or on the host, whence every step is sent its own.
    """

    def __init__(self, networks: Sequence[nn.Module], answers: Sequence[Tensor]):
        super().__init__(networks)
        self.answers = answers
        self.capturable = answers[0].device.type != "cpu"
        self.images: Tensor | None = None
        self.views: Views | None = None

    def expect(self, images: Tensor, views: Views | None) -> None:
        self.images, self.views = images, views

    def __call__(self, images: Tensor) -> Tensor:
        return self.look_up(self.answers) if self.knows(images) else super().__call__(images)

    def answer(self, m: int, images: Tensor) -> Tensor:
        return self.look_up([self.answers[m]])[0] if self.knows(images) else super().answer(m, images)

    def knows(self, images: Tensor) -> bool:
        return images is self.images and self.views is not None

    def look_up(self, answers: Sequence[Tensor]) -> Tensor:
        """Logits [M, B, K] of the expected images."""
        if answers[0].device == self.images.device:
            return torch.stack([known[self.views.on_device] for known in answers]).float()
        return send(torch.stack([known[self.views.on_host] for known in answers]), self.images.device).float()


def is_worth_it(cache: str, asked: int, teachers: int, views: int, epochs: int, size: int) -> bool:
    """Whether a run looks its teachers' answers up, given teachers.cache.

    Building them asks each of the teachers about every view of every image; without them a step asks so many (`asked`)
    about its images. auto: where building them asks no more often than one run would, and they fit, size in bytes.
    That is views <= epochs where a step asks all teachers, M times as many epochs where it asks one of M, as
    perturbations do.
    """
    if cache == "none" or not asked:
        return False
    return cache == "views" or (teachers * views <= asked * epochs and size <= LIMIT_BYTES)


def place(answers: Sequence[Tensor], device: torch.device, console: Console) -> Sequence[Tensor]:
    """Answers on the device where they fit, else on the host: the same numbers, and no step waits for either."""
    if device.type == "cpu":
        return answers
    size, (free, _) = sum(known.nbytes for known in answers), torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what earlier runs left
    if size <= SHARE * free:
        try:
            return [known.to(device) for known in answers]
        except torch.cuda.OutOfMemoryError:  # somebody else was quicker
            pass
    console.say(
        f"the teachers' views stay in the host's memory: they are {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on the "
        f"device, of which they take {SHARE:.0%} at most"
    )
    return answers


@dataclass
class ViewCache:
    """Answers for the views of one train split, of `fingerprint`, by this code (its hash) on a kind of device ("cpu" or a GPU's name). `stop` is
    asked whether to leave off building.
    """

    augmentation: Augmentation
    classes: int
    code: str
    fingerprint: str
    device: str
    console: Console
    stop: Stop

    def answers(self, teacher: Path, network: nn.Module) -> Tensor:
        """The answers [N * V, K] in float16, on the CPU, of the network in a teacher's directory. Raises Interrupted."""
        kept = KeptArray(
            path=teacher / self.name(),
            name="the teachers' views",
            shape=(len(self.augmentation.padded) * self.augmentation.views, self.classes),
            dtype=np.float16,
            origin=origin(self.code, [teacher], self.fingerprint, self.device),
            fill=lambda found: self.fill(found, network, teacher),
            say=self.console.say,
        )
        try:
            return torch.from_numpy(np.asarray(kept.get(self.stop)))
        except Claimed as claimed:
            raise Interrupted("stopped while another process computed the teachers' views") from claimed

    def name(self) -> str:
        """The file name of a teacher's views."""
        key = json.dumps([self.fingerprint, self.augmentation.padding, self.augmentation.flip, self.device])
        return f"views-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"

    def fill(self, found: np.ndarray, network: nn.Module, teacher: Path) -> None:
        """Write a teacher's answers into an array [N * V, K] of float16. Raises Interrupted."""
        started, augmentation = time.monotonic(), self.augmentation
        images, device = augmentation.padded, augmentation.padded.device
        batch = batch_for(images)
        piece = PIECE * batch
        with torch.inference_mode():
            for start in range(0, len(found), piece):
                numbers = torch.arange(start, min(start + piece, len(found)), device=device)
                answers = []
                for views in numbers.split(batch):
                    if self.stop():
                        raise Interrupted("stopped while the teachers' views were computed")
                    logits = at_least_float32(network(augmentation(views)))
                    answers.append((logits - logits.amax(1, keepdim=True)).half())
                found[start : start + piece] = torch.cat(answers).cpu().numpy()  # the one wait of a piece
        self.console.say(
            f"{teacher / self.name()}: {augmentation.views} views of {len(images):,} images in "
            f"{duration(time.monotonic() - started)}"
        )
