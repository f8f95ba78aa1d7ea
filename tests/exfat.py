"""A real file system without links: exFAT, in a file that is mounted for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOLS = ("mkfs.exfat", "mount.exfat-fuse", "losetup")
SIZE = 256 << 20


class Unavailable(RuntimeError):
    """This machine mounts no exFAT."""


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """An empty exFAT, below a folder. Raises Unavailable where tools (Debian: exfat-fuse, exfatprogs), root or loop
    devices are missing.
    """
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise Unavailable(f"no {', '.join(missing)}")
    image, place = folder / "exfat", folder / "mounted"
    image.touch()
    os.truncate(image, SIZE)
    place.mkdir()
    device = None
    try:
        call("mkfs.exfat", str(image))
        device = call("losetup", "--find", "--show", str(image)).strip()
        call("mount.exfat-fuse", device, str(place))
    except subprocess.CalledProcessError as error:
        if device:
            call("losetup", "--detach", device)
        raise Unavailable(f"{error.cmd[0]}: {error.output.strip()}") from error
    try:
        yield place
    finally:
        call("umount", "--lazy", str(place))
        call("losetup", "--detach", device)


def call(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return done.stdout
