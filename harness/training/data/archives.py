"""Files of published data sets: found, verified, downloaded, unpacked.

Several jobs may start at once on a shared folder: one downloads or unpacks under a claim while the others wait, and a
file appears under its name only when it is whole and its checksum is right.
"""

from __future__ import annotations

import gzip
import hashlib
import shlex
import shutil
import tarfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from harness.config import ConfigError
from harness.runtime.console import Bar, Console, one_line
from harness.store.claim import Claim, Claimed

DEFAULT_ROOT = "data"
BLOCK = 1 << 20
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Archive:
    """One published file. `path` is relative to the data folder; any of `md5` will do (same content, packed anew)."""

    path: str
    url: str
    md5: tuple[str, ...]


def root_folder(root: str | None) -> Path:
    """The folder of `data.root`."""
    return Path(root or DEFAULT_ROOT).expanduser()


def obtain(
    archives: Sequence[Archive],
    name: str,
    root: Path,
    download: bool,
    console: Console,
    elsewhere: Sequence[Path] = (),
    hint: str = "",
) -> list[Path]:
    """Verified paths of the archives, downloaded where they are missing and `download` says so.

    elsewhere: folders that may hold the files as well, by their bare names. Raises ConfigError where a file is missing
    (with the command that gets it) or damaged.
    """
    paths = []
    for archive in archives:
        candidates = [root / archive.path, *(folder / Path(archive.path).name for folder in elsewhere)]
        path = next((path for path in candidates if path.exists()), None)
        if path is None:
            if not download:
                raise missing(name, root / archive.path, root, hint)
            path = fetch(archive, root, console)
        else:
            verify(path, archive.md5)
        paths.append(path)
    return paths


def missing(name: str, path: Path, root: Path, hint: str = "") -> ConfigError:
    """The error for data that are not there, with the command that gets them."""
    return ConfigError(
        f"{path} is missing: get it by `python -m harness.data {name} {shlex.quote(str(root))}`, or add data.download=true{hint}"
    )


def md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def verify(path: Path, md5: Sequence[str]) -> None:
    """Raise ConfigError unless the file's checksum is one of `md5`."""
    try:
        found = md5_of(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; remove it to get it anew") from error
    if found not in md5:
        raise ConfigError(
            f"{path} is damaged: md5 {found}, not {' or '.join(md5)}, "
            f"{path.stat().st_size:,} bytes; remove it to get it anew"
        )


def once(place: Path, work: Callable[[], None], console: Console) -> None:
    """Run `work`, which makes `place`, in one process; the others wait until it is there.

    Raises ConfigError where the folder cannot be written to.
    """
    said = False
    while not place.exists():
        try:
            with Claim(place.parent / ".claims" / place.name):
                if not place.exists():
                    work()
        except Claimed as claimed:
            if not said:
                console.say(f"waiting for {place}: {claimed}")
                said = True
            time.sleep(1)
        except OSError as error:
            raise ConfigError(f"cannot write {place}: {error.strerror or error}; choose another data.root") from error


def fetch(archive: Archive, root: Path, console: Console) -> Path:
    """Download a file to its place below `root`; it is there only when its checksum is right."""
    place = root / archive.path
    once(place, lambda: download_to(archive, place, console), console)
    return place


def download_to(archive: Archive, place: Path, console: Console) -> None:
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex[:12]}")
    place.parent.mkdir(parents=True, exist_ok=True)
    bar, done = None, 0
    try:
        with part.open("wb") as file:
            for block, total in receive(archive.url, place):
                bar = bar or Bar(console, f"download {place.name}", total)
                done += file.write(block)
                bar.update(done, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")
        found = md5_of(part)
        if found not in archive.md5:
            raise ConfigError(
                f"{archive.url} came damaged: md5 {found}, not {' or '.join(archive.md5)}, {done:,} bytes; try again"
            )
        part.replace(place)
    finally:
        if bar:
            bar.close()
        part.unlink(missing_ok=True)


def receive(url: str, place: Path) -> Iterator[tuple[bytes, int]]:
    """What a server sends, block by block, with how much it says it will be, 0 where it does not say.

    Raises ConfigError, whatever it says or does; `place`: where a person may put the file.
    """
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:
            total, done = response.length or 0, 0
            while block := response.read(BLOCK):
                done += len(block)
                yield block, total
    except Exception as error:  # whatever the library makes of somebody's reply, and of a connection
        reason = one_line(str(getattr(error, "reason", error)).strip() or type(error).__name__)
        raise ConfigError(f"cannot download {url}: {reason}; on a machine with access, put it at {place}") from error
    if done < total:
        raise ConfigError(f"cannot download {url}: it ended after {done:,} of {total:,} bytes; try again")


def unpack(archive: Path, place: Path, console: Console) -> None:
    """Unpack a tar or zip file whose one top folder is named like `place`; a part of it is never seen there."""

    def work() -> None:
        scratch = place.with_name(f".unpacking.{uuid.uuid4().hex[:12]}")
        scratch.mkdir(parents=True)
        console.say(f"unpacking {archive}")
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    file.extractall(scratch)
            else:
                # Python has the filter from 3.10.12 and 3.11.4 on.
                safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                with tarfile.open(archive) as file:
                    file.extractall(scratch, **safely)
            (scratch / place.name).rename(place)
        except (
            tarfile.TarError,
            zipfile.BadZipFile,
            gzip.BadGzipFile,
            EOFError,
            zlib.error,
            FileNotFoundError,
        ) as error:
            raise ConfigError(
                f"{archive} cannot be unpacked ({type(error).__name__}: {error}); remove it to get it anew"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    once(place, work, console)
