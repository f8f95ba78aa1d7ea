"""The lab that is meant where no folder is named: one for each user and machine.

Its folder has a name that nobody can guess, so a file of the user's own remembers it. Homes are often shared between
machines, a lab's folder is not: each machine has its own file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from slurm.errors import LabError, show
from slurm.files import OTHERS_WRITE, open_own, owner, read_own, write_own
from slurm.folder import claim, locate, make, require


def choose(say: Callable[[str], None]) -> Path:
    """The folder for a start: the remembered one, or a fresh one, remembered from now on.

    `say` is told why a remembered folder that is still there is not used any more.
    """
    with _locked():
        folder = recall()
        if folder is not None and os.path.lexists(folder):
            try:
                require(folder)
            except LabError as error:
                say(f"not used any more: {error}")
            else:
                return folder
        folder = make()
        with claim(folder):
            write_own(_file("folder"), f"{folder}\n")
        return folder


def recall() -> Path | None:
    """The remembered folder, None if there is none; whether it is to be trusted is asked elsewhere (`require`)."""
    file = _file("folder")
    if not _check_home():
        return None
    try:
        text = read_own(file)
    except FileNotFoundError:
        return None
    folder = Path(text.removesuffix("\n"))
    if text != f"{folder}\n" or not str(folder).isprintable() or locate(folder) != folder:
        raise LabError(f"{show(file)} does not name a lab's folder; delete it")
    return folder


def _home() -> Path:
    """Where programs remember things; the standard says that a relative path there does not count."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path(os.path.expanduser("~/.local/state"))  # noqa: PTH111  (Path.home raises where there is none)
    if not state.is_absolute():
        raise LabError("no home directory to remember a lab in; name its folder: python -m slurm.lab COMMAND DIR")
    return state / "slurm-lab"


def _file(kind: str) -> Path:
    return _home() / f"{kind}-{re.sub(r'[^A-Za-z0-9.-]', '_', socket.gethostname())}"


def _check_home() -> bool:
    """Whether the directory is there; LabError if it is not ours alone."""
    home = _home()
    try:
        about = home.lstat()
    except FileNotFoundError:
        return False
    if not home.is_dir() or home.is_symlink() or about.st_uid != os.getuid() or about.st_mode & OTHERS_WRITE:
        raise LabError(
            f"{show(home)} (of {owner(about.st_uid)}) is not a directory that only you can write to;"
            " name the lab's folder: python -m slurm.lab COMMAND DIR"
        )
    return True


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Two starts at a time choose one after the other, and so the same folder."""
    try:
        _home().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"{show(_home())}: cannot remember a lab there ({error.strerror});"
            " name its folder: python -m slurm.lab start DIR"
        ) from error
    _check_home()
    lock = open_own(_file("lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
