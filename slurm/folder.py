"""A lab's folder: whose it is, who is at work in it, and what of it may be deleted.

A lab deletes what lies in its folder, and a shell evaluates what is found there. So a folder counts only if a file in
it says that a lab of this very user made it in this very place, if nobody else can have put it there, and if nothing in
it leads out of it. What holds once holds on: nobody but this user can change what was looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from slurm.errors import LabError, show
from slurm.files import OTHERS_WRITE, make_directory, open_own, owner, read_own

MARKER = ".slurm-lab"
CONTENT = """\
A cluster of slurm.lab lives in this folder; its `stop` deletes run, state, db and spool-n*.
user: {user}
folder: {folder}
"""
# A socket's path has at most 107 bytes, and a job's is FOLDER/spool-n100/n100_12345678.4294967291.
LONGEST = 70
SPOOL = re.compile(r"spool-(n[1-9][0-9]*)", re.ASCII)
PASSING = ("run", "state", "db")  # and the spools: gone after a stop
LASTING = ("log", "dev")
FILES = ("slurm.conf", "slurmdbd.conf", "munge.key", "cgroup.conf", "gres.conf")


def locate(folder: Path | str) -> Path:
    """The folder's one true path. Links on the way are resolved; the folder itself must not be one (`require`)."""
    if not str(folder):
        raise LabError("the folder's name is empty; give DIR, or leave it out")
    path = Path(folder)
    if path.name in ("", ".."):  # never a link
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


def make() -> Path:
    """A fresh folder whose name nobody can guess, in the temporary directory if munged accepts that one, else /tmp."""
    refused = []
    for parent in dict.fromkeys(Path(os.path.realpath(name)) for name in (tempfile.gettempdir(), "/tmp")):
        try:
            _check_name(parent / "slurm-lab-12345678")
            _check_way(parent / "slurm-lab-12345678", enter=True)
        except LabError as error:
            refused.append(str(error))
        else:
            return Path(tempfile.mkdtemp(prefix="slurm-lab-", dir=parent))
    raise LabError("no place for a lab's folder: " + "; ".join(refused))


def require(folder: Path) -> None:
    """Raise LabError unless this is a folder of a lab of ours, and only we can have changed what is in it."""
    _check_way(folder)
    _check_owner(folder)
    _check_writers(folder)
    try:
        content = read_own(folder / MARKER)
    except FileNotFoundError:
        raise LabError(f"{show(folder)}: no lab made this folder (it has no {MARKER}); name a lab's") from None
    _check_marker(folder, content)
    _check_parts(folder)


@contextlib.contextmanager
def claim(folder: Path, patience: float = 120) -> Iterator[None]:
    """Make a folder a lab's, or find that it is one, and keep other starts and stops out of it meanwhile.

    Raises:
        LabError: it is neither empty nor a lab's of ours, or the cluster's programs would refuse it.
    """
    _check_name(folder)
    _check_way(folder)
    for parent in reversed([parent for parent in folder.parents if not parent.exists()]):
        make_directory(parent)
    if os.path.lexists(folder):
        _check_owner(folder)
        _check_free(folder)
    _check_way(folder, enter=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755)
    _check_owner(folder)
    if not _names(folder):
        folder.chmod(0o755)  # first, so that nobody puts anything in between the look and the marker
    _check_free(folder)
    _check_writers(folder)
    with _locked(folder, os.O_CREAT, patience) as marker:
        content = os.pread(marker, 4096, 0).decode(errors="replace")
        if not content and _names(folder) == [MARKER]:  # new, or the start that made it was killed here
            content = _content(folder)
            os.pwrite(marker, content.encode(), 0)
        _check_marker(folder, content)
        _check_parts(folder)
        folder.chmod(0o755)  # munged refuses a socket below a folder that others cannot enter
        yield


@contextlib.contextmanager
def hold(folder: Path, patience: float = 120) -> Iterator[None]:
    """Keep other starts and stops out of a lab's folder; raises as `require`."""
    require(folder)
    with _locked(folder, 0, patience):
        require(folder)
        yield


def nodes(folder: Path) -> list[str]:
    """Names of the nodes that have a spool in the folder."""
    names = [match[1] for match in map(SPOOL.fullmatch, _names(folder)) if match]
    return sorted(names, key=lambda name: int(name[1:]))


def empty(folder: Path) -> None:
    """Delete what a lab leaves behind, all but its logs and configuration."""
    require(folder)
    for name in (*PASSING, *(f"spool-{node}" for node in nodes(folder))):
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def remove(folder: Path) -> None:
    """Delete a lab's folder with all that is in it; one that no start has claimed yet is empty."""
    if not _names(folder):
        return folder.rmdir()
    require(folder)
    shutil.rmtree(folder)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _content(folder: Path) -> str:
    return CONTENT.format(user=os.getuid(), folder=folder)


@contextlib.contextmanager
def _locked(folder: Path, flags: int, patience: float) -> Iterator[int]:
    """Wait for the lock on the marker, which whoever starts or stops a lab holds."""
    marker = open_own(folder / MARKER, os.O_RDWR | flags)
    try:
        deadline = time.monotonic() + patience
        while not _try_lock(marker):
            if time.monotonic() > deadline:
                raise LabError(f"{show(folder)}: another start or stop has been at work here for {patience:g} s")
            time.sleep(0.05)
        if not os.fstat(marker).st_nlink:
            raise LabError(f"{show(folder)}: deleted meanwhile; try again")
        yield marker
    finally:
        os.close(marker)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_name(folder: Path) -> None:
    """slurm.conf has no quotes: what it would read as something else must not be in a path."""
    text = str(folder)
    if len(os.fsencode(text)) > LONGEST or not all(c.isalnum() or c in "/._-+@" for c in text):
        raise LabError(
            f"{show(folder)}: give a path of at most {LONGEST} bytes (it holds sockets), of letters, digits and ._-+@"
        )


def _check_way(folder: Path, enter: bool = False) -> None:
    """Nobody but root and us may exchange the folder for another one: these are munged's rules too."""
    for parent in folder.parents:
        about = _look(parent)
        if about is None:
            continue
        if about.st_uid not in (0, os.getuid()):
            wrong = f"{show(parent)} belongs to {owner(about.st_uid)}, who could exchange a lab in it"
        elif about.st_mode & OTHERS_WRITE and not about.st_mode & stat.S_ISVTX:
            wrong = f"others may write to {show(parent)}, and exchange a lab in it"
        elif enter and not about.st_mode & stat.S_IXOTH:
            wrong = f"not every user may enter {show(parent)}, and munged insists on it"
        else:
            continue
        raise LabError(f"{show(folder)}: {wrong}; name a folder elsewhere")


def _check_owner(folder: Path) -> None:
    about = _look(folder)
    if about is None:
        raise LabError(f"{show(folder)}: no such folder")
    if stat.S_ISLNK(about.st_mode):
        raise LabError(f"{show(folder)} is a link; name the folder itself")
    if not stat.S_ISDIR(about.st_mode):
        raise LabError(f"{show(folder)}: not a folder; name another one")
    if about.st_uid != os.getuid():
        raise LabError(f"{show(folder)}: not a folder of yours, but of {owner(about.st_uid)}; name another one")


def _check_writers(folder: Path) -> None:
    if folder.lstat().st_mode & OTHERS_WRITE:
        raise LabError(f"{show(folder)}: others may write to it, so it is not believed; start a lab in another folder")


def _check_free(folder: Path) -> None:
    names = _names(folder)
    if names and MARKER not in names:
        raise LabError(f"{show(folder)}: neither empty nor a lab (it has no {MARKER}); name another folder")


def _check_marker(folder: Path, content: str) -> None:
    if content != _content(folder):
        raise LabError(
            f"{show(folder)}: its {MARKER} is not that of a lab that you started here"
            " (copied, moved or damaged?); delete the folder yourself, or name another one"
        )


def _check_parts(folder: Path) -> None:
    """What a lab puts into its folder is what it was: no link, and nobody else's."""
    directories = (*PASSING, *LASTING, *(f"spool-{node}" for node in nodes(folder)))
    for name in (*directories, *FILES):
        about = _look(folder / name)
        if about is None:
            continue
        right = stat.S_ISDIR if name in directories else stat.S_ISREG
        if not right(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & OTHERS_WRITE:
            raise LabError(
                f"{show(folder / name)} is not what a lab put there (a link, another user's, or writable by others);"
                " nothing is touched"
            )
        if name in directories and about.st_dev != folder.lstat().st_dev:
            raise LabError(f"{show(folder / name)} is a file system of its own; nothing is touched")


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
