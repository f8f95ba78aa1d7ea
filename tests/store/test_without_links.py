"""File systems without hard links: one owner, one record, as where there are some."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.store import claim
from harness.store.claim import Claim, read_claim
from harness.store.files import place, write_atomically
from harness.store.identity import run_directory
from harness.store.record import check_files, read_record
from tests import exfat
from tests.heads import ROOT
from tests.running import configure, run

COUNT, ROUNDS = 20, 25
# Twenty processes that begin together: in each round one of them places its own, and then they own the folder in turn.
CODE = f"""
import os, sys, time
from pathlib import Path
from harness.store import claim, files

folder = Path(sys.argv[1])
claim.LOOK_S, refusing = 0.01, sys.argv[2] == "refusing"
if refusing:
    def refuse(*_, **__): raise PermissionError(1, "Operation not permitted")
    os.link = refuse
ready, go = os.pipe()
for number in range({COUNT}):
    if os.fork() == 0:
        os.close(go)
        os.read(ready, 1)  # until the parent lets all of them go
        said, mine = [], folder / f"scratch-{{number}}"
        mine.write_text(str(number))
        for turn in range({ROUNDS}):
            try:
                files.place(mine, folder / f"turn-{{turn}}")
                said.append(f"won {{turn}}")
            except FileExistsError:
                pass
        with claim.Claim(folder, until=lambda: False):
            began = time.monotonic()
            time.sleep(0.01)
            said.append(f"owned {{began}} {{time.monotonic()}}")
        (folder / f"said-{{number}}").write_text("\\n".join(said))
        os._exit(0)
os.close(ready)
os.close(go)
sys.exit(any(os.waitpid(-1, 0)[1] for _ in range({COUNT})))
"""


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a file system that has no links."""
    try:
        with exfat.mounted(tmp_path_factory.mktemp("exfat")) as folder:
            (folder / "one").touch()
            with pytest.raises(OSError):
                os.link(folder / "one", folder / "two")
            yield folder
    except exfat.Unavailable as error:
        pytest.skip(f"no exFAT here: {error}")


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse hard links, as a file system does that has none."""

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)


def check_crowd(folder: Path, links: str) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", CODE, str(folder), links], cwd=ROOT, check=True, timeout=120)
    said = {path.name: path.read_text().splitlines() for path in folder.glob("said-*")}
    assert len(said) == COUNT
    for turn in range(ROUNDS):
        (winner,) = (name for name, lines in said.items() if f"won {turn}" in lines)
        assert (folder / f"turn-{turn}").read_text() == winner.removeprefix("said-")
    spans = sorted(tuple(map(float, lines[-1].split()[1:])) for lines in said.values())
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    assert not [path.name for path in folder.iterdir() if "claim" in path.name]


def test_of_twenty_at_once_one_succeeds(without_links: Path) -> None:
    check_crowd(without_links / "crowd", "as they are")


def test_of_twenty_at_once_one_succeeds_where_links_are_refused(tmp_path: Path) -> None:
    check_crowd(tmp_path, "refusing")


def test_a_run_leaves_what_it_leaves_anywhere(without_links: Path) -> None:
    config = configure(without_links / "runs", "kd", teachers__size=1, threads=1)
    record = run(without_links / "runs", "kd", teachers__size=1, threads=1)
    directory = run_directory(config)
    assert record["status"] == "done"
    check_files(directory, read_record(directory))
    assert not [path.name for path in directory.iterdir() if path.name.startswith(".") or "claim" in path.name]


def test_both_ways_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: None) -> None:
    """Processes of one sweep may be on different clients of one file server."""
    first, second, there = tmp_path / "first", tmp_path / "second", tmp_path / "there"
    first.write_text("first")
    second.write_text("second")
    place(first, there)
    monkeypatch.undo()
    with pytest.raises(FileExistsError):
        place(second, there)
    assert there.read_text() == "first"
    there.unlink()
    place(second, there)
    refuse(monkeypatch)
    with pytest.raises(FileExistsError):
        place(first, there)
    assert there.read_text() == "second"


def test_a_full_disk_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: None) -> None:
    def half(descriptor: int, content: bytes) -> int:
        return write(descriptor, content[: len(content) // 2])

    write = os.write
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_atomically(tmp_path / "record.json", "whole", replace=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_takes_nothing_from_who_came_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: None
) -> None:
    path = tmp_path / "record.json"

    def replaced(descriptor: int, content: bytes) -> int:
        (tmp_path / "another").write_text("another's")
        (tmp_path / "another").replace(path)
        return 0

    monkeypatch.setattr(os, "write", replaced)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_atomically(path, "mine", replace=False)
    assert path.read_text() == "another's"


def test_who_sleeps_while_it_claims_owns_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: None
) -> None:
    """Its file is there and empty; the others wait for as long as a claim lives, then it is another's."""
    monkeypatch.setattr(claim, "LOOK_S", 0.01)
    monkeypatch.setattr(claim, "STALE_S", 0.2)
    write, others = os.write, []

    def sleep(descriptor: int, content: bytes) -> int:
        if not others:
            others.append(Claim(tmp_path))
            assert read_claim(tmp_path / claim.CLAIM) == claim.NOBODY
            others[0].__enter__()
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", sleep)
    with pytest.raises(claim.Claimed), Claim(tmp_path, wait_s=0.1):
        raise AssertionError("two owners")
    others[0].check()
    others[0].__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []
