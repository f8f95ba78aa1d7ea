"""Which files of a folder are the images of a set: every file that lies there is one, or is counted as left out.

An image is a file with one of the SUFFIXES, however deep it lies in its class's folder (as torchvision's ImageFolder has
it, and in its order), unless it or a folder on the way is hidden: its name begins with a dot, or is one of LITTER.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.config import ConfigError
from harness.runtime.console import one_line

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),  # torchvision's
        *(".avif", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".pbm", ".pnm"),
    )
)
LITTER = frozenset(
    (
        *("__MACOSX", "__pycache__", "@eaDir", "#recycle", "#snapshot", "lost+found", "Thumbs.db"),
        *("$RECYCLE.BIN", "System Volume Information"),
    )
)
CIRCLE = "links in a circle"
TOLD = 5  # reasons that a line has place for


class LeftOut(Counter[str]):
    """How many files are no images of a set, by why."""

    def __str__(self) -> str:
        counts = sorted((+self).items(), key=lambda item: (-item[1], item[0]))
        reasons = [f"{count:,} {why}" for why, count in counts[:TOLD]]
        if rest := sum(count for _, count in counts[TOLD:]):
            reasons.append(f"{rest:,} others")
        return f"{self.total():,} left out: {', '.join(reasons)}" if reasons else "no file left out"


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name. Raises ConfigError where that cannot be told."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be listed: {error.strerror}") from error


def list_folders(folder: Path, left_out: LeftOut) -> list[Path]:
    """The folders in a folder that are not hidden, by name; files, what is hidden, and links to a folder above are left
    out. Raises ConfigError for a link to nothing.
    """
    folders, above = [], numbers_above(folder)
    for entry in entries(folder):
        if not is_folder(entry):
            left_out[reason(entry) or "in no class's folder"] += 1
        elif is_hidden(entry.name):
            leave_out(Path(entry.path), "hidden", left_out)
        elif number(entry) in above:
            left_out[CIRCLE] += 1
        else:
            folders.append(Path(entry.path))
    return folders


def list_images(folder: Path, left_out: LeftOut) -> list[Path]:
    """The images of a folder and of those in it: its own by name, then those of each folder in it.

    Raises ConfigError for a link to nothing.
    """
    images = []
    for entry in walk(folder, left_out):
        if why := reason(entry):
            left_out[why] += 1
        elif entry.is_file():
            images.append((os.path.dirname(entry.path), entry.name))  # noqa: PTH120  quickly, of a million
        else:
            left_out["no regular files"] += 1
    return [Path(*place) for place in sorted(images)]


def leave_out(folder: Path, why: str, left_out: LeftOut) -> None:
    """Count all files of a folder."""
    left_out[why] += sum(1 for _ in walk(folder, LeftOut(), hidden=True))


def walk(folder: Path, left_out: LeftOut, hidden: bool = False) -> Iterator[os.DirEntry]:
    """All that lies in a folder and in the folders in it, but for folders. Hidden ones, unless asked for, are left out,
    and so are links to a folder above, which would have no end.
    """
    yield from descend(folder, left_out, hidden, numbers_above(folder))


def descend(folder: Path, left_out: LeftOut, hidden: bool, above: frozenset[tuple]) -> Iterator[os.DirEntry]:
    for entry in entries(folder):
        if not is_folder(entry):
            yield entry
        elif not hidden and is_hidden(entry.name):
            leave_out(Path(entry.path), "hidden", left_out)
        elif number(entry) in above:
            left_out[CIRCLE] += 1
        else:
            yield from descend(Path(entry.path), left_out, hidden, above | {number(entry)})


def is_folder(entry: os.DirEntry) -> bool:
    """Of a link: whether it leads to one."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112  Path's raises for circles


def numbers_above(folder: Path) -> frozenset[tuple[int, int]]:
    """Of a folder, and of all that it lies in."""
    place = folder.resolve()
    return frozenset(map(number, (place, *place.parents)))


def number(place: Path | os.DirEntry) -> tuple[int, int]:
    """What tells a folder from all others, by whatever path."""
    found = place.stat()
    return found.st_dev, found.st_ino


def reason(entry: os.DirEntry) -> str | None:
    """Why a file is no image by its name; None where it is. Raises ConfigError for a link to nothing, or to itself:
    images may be missing there.
    """
    if is_hidden(entry.name):
        return "hidden"
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110  Path's raises for circles
        raise ConfigError(f"{entry.path} is a link to nothing: mend it, or remove it")
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  of a name, quickly
    return None if suffix in SUFFIXES else one_line(suffix) or "without a suffix"
