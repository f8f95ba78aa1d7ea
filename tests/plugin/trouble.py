"""Variants in a package of a user's own, found through its entry points; most of them die on purpose."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from methods.baselines.supervised import Supervised


@dataclass
class Slow(Supervised):
    """Supervised training that takes its time."""

    pause: float = 0.25  # seconds a step

    def loss(self, images, labels, teachers, student):
        time.sleep(self.pause)
        return super().loss(images, labels, teachers, student)


@dataclass
class Raises(Supervised):
    """An error in the user's code, in words that its environment may have."""

    def loss(self, images, labels, teachers, student):
        raise ArithmeticError(os.environ.get("TROUBLE", "the sky is falling"))


@dataclass
class Exits(Supervised):
    """A library that ends the process."""

    def loss(self, images, labels, teachers, student):
        os._exit(3)


@dataclass
class Hogs(Supervised):
    """More memory than the job may have."""

    megabytes: int = 3000

    def loss(self, images, labels, teachers, student):
        hoard = bytearray(self.megabytes << 20)
        time.sleep(60)
        raise MemoryError(f"{len(hoard)} bytes, and nobody minded")


@dataclass
class Sleeps(Supervised):
    """A hung file system: the loss does not return, so nobody asks whether the run should stop."""

    def loss(self, images, labels, teachers, student):
        time.sleep(3600)


@dataclass
class Asserts(Supervised):
    """A kernel whose assertion fails: of CUDA, what it says from then on to whatever the process asks of it."""

    def loss(self, images, labels, teachers, student):
        torch.cuda.is_initialized = lambda: True
        torch.cuda.synchronize = torch.manual_seed = refuse
        refuse()


def refuse(*arguments, **options):
    raise torch.AcceleratorError(
        "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in the documentation.\n"
        "CUDA kernel errors might be asynchronously reported at some other API call"
    )
