"""Worker processes that turn image files into pixels, for one process that says which.

They are forked from a server in which torch was imported and nothing else has happened: a fork of a process with threads
may wait for ever for a lock that nobody holds any more. Whatever becomes of a worker (an error, a signal, no memory) is
an error of the file that it was at; and it ends with its line to the other process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawValue
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from harness.config import ConfigError
from harness.runtime.interruption import SIGNALS, held_back
from harness.training.data.images import look

CHUNK = 16  # images that a worker is asked for at a time
AHEAD = 64  # images a worker that are decoded, or being decoded, before anybody wants them
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["harness.training.data.workers"])

Key = tuple[int, int]  # epoch and row
View = Callable[[Image.Image, Key], np.ndarray]  # an image as [C, H, W] uint8
Item = tuple[bytes, Key]  # a file's path, and what its view is told


def decode(item: Item, view: View) -> np.ndarray:
    """A view of an image file. Raises ConfigError, naming the file."""
    file, key = item
    return look(Path(os.fsdecode(file)), partial(view, key=key))


class Worker:
    """A process that decodes, and the line to it."""

    def __init__(self) -> None:
        self.line, theirs = CONTEXT.Pipe()
        self.at = CONTEXT.RawValue("i", 0)  # which file of those that it was asked for last
        self.process = CONTEXT.Process(target=serve, args=(theirs, self.at), daemon=True)
        resource_tracker.ensure_running()  # which would let signals through again
        # A request to stop is not for a worker: whoever finishes a step needs it until then.
        with held_back(SIGNALS), without_script():
            self.process.start()
        theirs.close()

    def fill(self, images: np.ndarray, items: Sequence[Item], view: View) -> None:
        """Views of the items into images [B, C, H, W]. Raises ConfigError, naming the file."""
        try:
            self.line.send((images.shape, items, view))
            if error := self.line.recv():
                raise ConfigError(error)
            self.line.recv_bytes_into(memoryview(images).cast("B"))
        except (EOFError, OSError) as error:
            self.process.kill()  # where it still lives, nobody knows what it says next
            self.process.join()
            code = self.process.exitcode
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            raise ConfigError(
                f"{os.fsdecode(items[self.at.value][0])} cannot be read as an image: the process that was at it ended "
                f"({how}); where memory is short, fewer data.workers need less"
            ) from error


def serve(line: Connection, at: RawValue) -> None:
    """What a worker does until its line ends."""
    torch.set_num_threads(1)
    sys.stderr = os.fdopen(os.dup(2), "w")  # of Python only: what C libraries say of a file is a page for every row
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with contextlib.suppress(EOFError, OSError):
        while True:
            shape, items, view = line.recv()
            images, error = np.empty(shape, np.uint8), None
            try:
                for at.value, item in enumerate(items):
                    images[at.value] = decode(item, view)
            except ConfigError as found:
                error = str(found)
            line.send(error)
            if error is None:
                line.send_bytes(memoryview(images).cast("B"))


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """A process that is started in here does not import the script that runs, which might begin anew in it."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class Decoders:
    """So many workers (0: this process itself), started when they are needed first; they end with this object."""

    def __init__(self, count: int):
        self.count = count
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Have all workers, living ones."""
        if self.workers and all(worker.process.is_alive() for worker in self.workers):
            return
        if self.workers:
            self.end()
        self.workers = [Worker() for _ in range(self.count)]
        self.free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            self.free.put(worker)
        self.threads = ThreadPoolExecutor(self.count, "decoders")
        self.end = Finalize(self, end, (self.workers, self.threads), exitpriority=0)

    def read(self, view: View, shape: Sequence[int], batches: Iterable[Sequence[Item]]) -> Iterator[np.ndarray]:
        """The views [B, C, H, W] of each batch, of `shape` [C, H, W] each; the next batches are decoded meanwhile.

        Raises ConfigError, naming the file.
        """
        if not self.count:
            for items in batches:
                images = np.empty((len(items), *shape), np.uint8)
                for place, item in zip(images, items, strict=True):
                    place[:] = decode(item, view)
                yield images
            return
        self.start()
        coming: deque[tuple[np.ndarray, list[Future]]] = deque()
        ahead = 0
        try:
            for items in batches:
                images = np.empty((len(items), *shape), np.uint8)
                coming.append((images, list(self.ask(images, items, view))))
                ahead += len(images)
                while ahead - len(coming[0][0]) >= self.count * AHEAD:
                    ahead -= len(coming[0][0])
                    yield arrived(*coming.popleft())
            while coming:
                yield arrived(*coming.popleft())
        finally:
            for _, parts in coming:
                for part in parts:
                    part.cancel()

    def ask(self, images: np.ndarray, items: Sequence[Item], view: View) -> Iterator[Future]:
        """Have a batch filled, a part of it by each worker that is free."""
        for start in range(0, len(items), CHUNK):
            part = slice(start, start + CHUNK)
            yield self.threads.submit(self.fill, images[part], items[part], view)

    def fill(self, *request: object) -> None:
        worker = self.free.get()
        try:
            worker.fill(*request)
        finally:
            self.free.put(worker)


def arrived(images: np.ndarray, parts: list[Future]) -> np.ndarray:
    """A batch, once all of it is there."""
    for part in parts:
        part.result()
    return images


def end(workers: list[Worker], threads: ThreadPoolExecutor) -> None:
    """End workers, whatever they are at."""
    threads.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.line.close()
