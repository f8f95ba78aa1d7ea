"""The one door to files: written whole or not at all, read as what they should be or not believed.

Whoever reads a file of ours goes through here, and so meets two errors: Damaged where the content is not what it should
be, and its kind Unreadable where the file system does not hand it out (what is in it, nobody knows).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

MOST_JSON = 256 << 20  # bytes: a larger file is none of ours, and would take the machine's memory to find out
BLOCK = 1 << 20
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

# By directory: asked when a file of it is about to take its place. Whoever claimed the directory puts a question here
# that raises where it was lost: writing takes seconds on a busy disk, and a process may be frozen in them.
GUARDS: dict[Path, Callable[[], None]] = {}

# Numbers of a file that are shown and counted with: in range, and no NaN.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class Damaged(ValueError):
    """A file that is there but is not what it should be; its message is the one line that names it and says why.

    mend: whether to set it aside and make it again.
    """

    mend = True


class Unreadable(Damaged, OSError):
    """A file that the file system does not hand out, such as one of somebody else, or on a failing disk."""

    mend = False


def write_atomically(path: Path, content: bytes | str | Sequence[bytes | memoryview], replace: bool = True) -> str:
    """Write a file so that a reader sees the old one or the new one, never a part (also over NFS); returns its SHA-256.
    content: of one piece, or of several, which are then not copied into one.

    Without `replace` it raises FileExistsError where there is one, whatever this machine's cache believes. Raises
    whatever the directory's guard does.
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    parts = [content] if isinstance(content, bytes) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with scratch.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if guard := GUARDS.get(path.parent.absolute()):
            guard()
        scratch.replace(path) if replace else place(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def place(scratch: Path, path: Path) -> None:
    """Give what is in `scratch` the name of `path` too, where nothing has it: of all who try at once, one succeeds.

    Where there are no hard links (exFAT, some of FUSE and SMB), a new file is filled instead: as exclusive, whichever
    way others go, but not whole at once. A reader may meet a part, and a process that slept in between may find its
    file gone, so who must know reads what is there in the end. Raises FileExistsError, and OSError as for a full disk.
    """
    try:
        os.link(scratch, path)
        return
    except FileExistsError:
        raise
    except OSError:  # of many kinds, by file system; where it is the disk, this finds out too
        content = scratch.read_bytes()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # else another one has replaced it
                path.unlink()
        raise
    finally:
        os.close(descriptor)


def append(path: Path, content: bytes | str, durable: bool = True) -> None:
    """Add to the end of a file; `durable`: it is on the disk when this returns. Raises OSError, also where only a
    part of it went.
    """
    # Without waiting: nobody may ever read from a named pipe in its place.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        if isinstance(content, str):
            content = content.encode(errors="backslashreplace")  # names of files need not be text
        if os.write(descriptor, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON. Raises ValueError for NaN and infinities, which JSON has not."""
    return json.dumps(value, indent=indent, allow_nan=False)


def write_json(path: Path, value: Any, indent: int | None = None, replace: bool = True) -> None:
    """Write a value as JSON; as `write_atomically` and `to_json`."""
    write_atomically(path, to_json(value, indent), replace)


def open_whole(path: Path, most: int | None = None) -> BinaryIO:
    """A file, opened for reading. Raises FileNotFoundError, Damaged for what is no file or is larger than `most` bytes
    (or than the machine's memory, which all that we read has to go into), and Unreadable.
    """
    try:
        # Without waiting: whoever opens a named pipe for reading would else hang until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if Path(path).is_symlink():  # not: whether it exists by now, for it may have come in between
            raise Damaged(f"{path} is a link to nowhere") from error
        raise
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    about = os.fstat(descriptor)
    try:
        if not stat.S_ISREG(about.st_mode):
            raise Damaged(f"{path} is no file")
        if about.st_size > (MEMORY if most is None else most):
            raise Damaged(f"{path} is too large to be what its name says ({about.st_size:,} bytes)")
    except Damaged:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int | None = None) -> bytes | None:
    """A file's content, or None where there is none. Raises Damaged and Unreadable as `open_whole`."""
    try:
        file = open_whole(path, most)
    except FileNotFoundError:
        return None
    with file:
        try:
            return file.read()
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path, shape: Any = Any) -> Any:
    """A JSON file's value, checked against a type (such as a TypedDict); None where there is no file.

    Raises Damaged for what is no JSON or of another shape, and Unreadable.
    """
    content = read_bytes(path, MOST_JSON)
    return None if content is None else parse_json(content, shape, str(path))


def read_json_lines(path: Path, shape: Any = Any) -> list[Any]:
    """The values of a file with one a line; what a dying process cut short, or never finished, is left out.

    Raises Damaged where the file is no text, and Unreadable.
    """
    values = []
    for line in (read_bytes(path, MOST_JSON) or b"").splitlines():
        try:
            values.append(parse_json(line, shape, str(path)))
        except Damaged:
            continue
    return values


def parse_json(content: bytes, shape: Any, name: str) -> Any:
    """A value from JSON text, checked against a type; `name` is its origin, for the message of Damaged."""
    try:
        value = json.loads(content.decode())
    except RecursionError as error:
        raise Damaged(f"{name} is not valid JSON (nested too deeply)") from error
    except ValueError as error:  # no UTF-8, no JSON, a number of thousands of digits
        raise Damaged(f"{name} is not valid JSON ({str(error)[:200]})") from error
    return check_shape(value, shape, name)


def check_shape(value: Any, shape: Any, name: str) -> Any:
    """The value itself, where it is of a type. Raises Damaged, naming its origin and the place in it, where not."""
    try:
        msgspec.convert(value, shape)  # checked, not converted: what a newer version added stays in it
    except msgspec.ValidationError as error:
        raise Damaged(f"{name} is not as it should be: {error}") from error
    return value


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex digits. Raises FileNotFoundError, Damaged and Unreadable as `open_whole`."""
    found = hashlib.sha256()
    with open_whole(path) as file:
        try:
            while block := file.read(BLOCK):
                found.update(block)
        except OSError as error:
            raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    return found.hexdigest()


def reason(error: Exception) -> str:
    """What a library says of content that it cannot read, in part of a line."""
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__


def set_damaged_aside(path: Path, error: Damaged) -> str:
    """Rename a file that cannot be believed, so that it is made again and can be looked into; returns the line that
    says so. Raises the error itself where nobody knows whether the file is damaged.
    """
    if not error.mend:
        raise error
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}{path.suffix}")
    with contextlib.suppress(FileNotFoundError):  # what is missing has nothing to set aside
        path.rename(aside)
        return f"{error}; it is now {aside.name}"
    return str(error)
