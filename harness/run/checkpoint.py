"""A training's state as a checkpoint of its run, and back."""

from __future__ import annotations

import io
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from harness.runtime.console import Console
from harness.store.checkpoint import (
    CHECKPOINT,
    FORMAT,
    Identity,
    check_identity,
    read_checkpoint,
    write_checkpoint,
)
from harness.store.files import Damaged, set_damaged_aside
from harness.training.state import Training

LARGE = 16 << 20  # bytes that are written while the training goes on


class Checkpoints:
    """The checkpoint of the run of this hash, by this code, on the data of this fingerprint, by teachers of these weights, in its
    directory. A large one is written by a thread; `wait` for it before the directory is anybody else's.
    """

    def __init__(self, directory: Path, run: str, code: str, data: str, teachers: str, console: Console):
        self.directory, self.console = directory, console
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future[None] | None = None
        self.of = {"run": run, "code": code, "data": data, "teachers": teachers}

    def save(self, training: Training, epochs: int, attempts: int, wall_s: float, arithmetic: list[str]) -> None:
        """Write the checkpoint of a training. epochs: done; attempts, wall_s, arithmetic: so far. Raises OSError and
        TakenOver, also of the last one.
        """
        self.wait()
        buffer = io.BytesIO()
        torch.save(training.state(), buffer)
        so_far = {"epochs": epochs, "attempts": attempts, "wall_s": wall_s, "arithmetic": arithmetic}
        identity: Identity = {**self.of, "format": FORMAT, **so_far}
        if buffer.tell() < LARGE:
            write_checkpoint(self.directory, identity, buffer.getbuffer())
        else:
            self.writing = self.writer.submit(write_checkpoint, self.directory, identity, buffer.getbuffer())

    def wait(self) -> None:
        """Until the last one is written. Raises what went wrong with it."""
        if self.writing is not None:
            last, self.writing = self.writing, None
            last.result()

    def load(self) -> tuple[Identity, dict[str, Any]] | None:
        """The checkpoint of an earlier attempt: how far it had come, and the training's state. None where there is
        none; one that is damaged, or of something else, is set aside and named.
        """
        try:
            found = read_checkpoint(self.directory)
            if found is None:
                return None
            identity, state = found
            check_identity(self.directory, identity, **self.of)
            return identity, self.decode(state)
        except Damaged as error:
            self.console.say(f"{set_damaged_aside(self.directory / CHECKPOINT, error)}, and the run starts again")
            return None

    def decode(self, state: bytes) -> dict[str, Any]:
        try:
            return torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch makes of it
            raise Damaged(f"{self.directory / CHECKPOINT} holds no training ({type(error).__name__})") from error
