"""Workers: whatever they meet is one line that names the file, and none of them outlives the process that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config import ConfigError
from harness.training.data.decoders import CHUNK, Decoders

HANGS_S = 240  # a test that waits so long has found a process that does not end


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number:03}.png" for number in range(3 * CHUNK)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return [os.fsencode(path) for path in paths]


class Look:
    """The image, unless its red is one that does something else."""

    def __init__(self, red: int | None = None, event: str = "raise"):
        self.red, self.event = red, event

    def __call__(self, image: Image.Image, key: tuple[int, int]) -> np.ndarray:
        pixels = np.asarray(image).transpose(2, 0, 1)
        if pixels[0, 0, 0] == self.red and self.event == "raise":
            raise MemoryError
        if pixels[0, 0, 0] == self.red:
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels


def request(files: list[bytes], size: int) -> list[list[tuple]]:
    """Batches of that size."""
    items = [(file, (0, row)) for row, file in enumerate(files)]
    return [items[k : k + size] for k in range(0, len(items), size)]


def read(decoders: Decoders, files: list[bytes], view: Look, size: int = 2 * CHUNK) -> list[int]:
    """The red of every image."""
    return [int(image[0, 0, 0]) for batch in decoders.read(view, (3, 4, 4), request(files, size)) for image in batch]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_images_come_in_order(files, count):
    for size in (1, 5, 2 * CHUNK + 1, 3 * CHUNK):
        assert read(Decoders(count), files, Look(), size) == list(range(3 * CHUNK))


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_names_the_file(files, count):
    decoders = Decoders(count)
    for red in (0, 20, 3 * CHUNK - 1):
        with pytest.raises(ConfigError) as caught:
            read(decoders, files, Look(red))
        assert str(caught.value) == f"{os.fsdecode(files[red])} cannot be read as an image: MemoryError"
    assert read(decoders, files, Look()) == list(range(3 * CHUNK))


def test_a_worker_that_is_killed_names_its_file_and_is_replaced(files):
    decoders = Decoders(2)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            read(decoders, files, Look(17, "kill"))
        assert str(caught.value).startswith(f"{os.fsdecode(files[17])} cannot be read as an image: ")
        assert "(SIGKILL)" in str(caught.value) and "\n" not in str(caught.value)
    assert read(decoders, files, Look()) == list(range(3 * CHUNK))


def test_reads_that_are_left_in_the_middle_are_in_nobodys_way(files):
    decoders = Decoders(1)
    begun = [decoders.read(Look(), (3, 4, 4), request(files, 4)) for _ in range(3)]
    for reading in begun:
        next(reading)
    assert read(decoders, files, Look()) == list(range(3 * CHUNK))
    assert all(next(reading)[0, 0, 0, 0] == 4 for reading in begun)


def test_workers_end_with_their_owner(files):
    decoders = Decoders(2)
    read(decoders, files, Look())
    processes = [worker.process for worker in decoders.workers]
    assert all(process.is_alive() for process in processes)
    del decoders
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2


# As processes. The output of a process ends when nobody holds it any more: neither it nor a worker.

LEFT_ALIVE = """
import os, signal, sys, tempfile
from pathlib import Path
from PIL import Image
from harness.training.data.files import Centre
from harness.training.data.decoders import Decoders

folder = Path(tempfile.mkdtemp())
for number in range(200):
    Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
batches = [[(os.fsencode(path), (0, 0)) for path in folder.iterdir()]] * 10
decoders = Decoders(2)
reading = decoders.read(Centre(8, 8), (3, 8, 8), batches)
kept = [next(reading)]
print("read", flush=True)
END
"""
ENDS = {
    "at its end": ("", 0),
    "by a signal": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_no_worker_outlives_a_process_that_ends(tmp_path, end):
    """A file without a guard: workers do not run it."""
    code, status = ENDS[end]
    (tmp_path / "script.py").write_text(LEFT_ALIVE.replace("END", code))
    ended = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "read\n", "")
