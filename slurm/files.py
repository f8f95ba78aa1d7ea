"""Small files of our own: none is believed that another user may have written, none is written through a link."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from slurm.errors import LabError, show

MOST = 4096  # bytes; what is larger is none of ours
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def owner(uid: int) -> str:
    """A user, for a message."""
    try:
        return show(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"user id {uid}"


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file that is ours alone to write; new files are private.

    Raises:
        FileNotFoundError: it is not there.
        LabError: it is a link, no file, or another user could have written it.
    """
    try:
        # Without waiting: opening a named pipe would else hang until somebody writes to it.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LabError(f"{show(path)} is a link, not a file of a lab") from None
        raise
    about = os.fstat(descriptor)
    wrong = None
    if not stat.S_ISREG(about.st_mode):
        wrong = "is no file"
    elif about.st_uid != os.getuid():
        wrong = f"belongs to {owner(about.st_uid)}"
    elif about.st_mode & OTHERS_WRITE:
        wrong = "may be written by others"
    if wrong:
        os.close(descriptor)
        raise LabError(f"{show(path)} {wrong}, so it is not believed")
    return descriptor


def read_own(path: Path) -> str:
    """The text of a small file of ours; raises as `open_own`."""
    with os.fdopen(open_own(path), "rb") as file:
        content = file.read(MOST + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > MOST:
        raise LabError(f"{show(path)} is damaged")
    return text


def append_own(path: Path) -> BinaryIO:
    """A file of ours, open for more to be written at its end; raises as `open_own`."""
    return os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def write_own(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all; a link of its name is replaced, not followed."""
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content.encode() if isinstance(content, str) else content)
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory of this very mode, whatever the umask; one that is there already is used again."""
    path.mkdir(exist_ok=True)
    path.chmod(mode)
