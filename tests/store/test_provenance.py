"""Whose changes a record knows: those of the checkout that it ran from, or that nobody knows."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.store import provenance

GIT = shutil.which("git")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit, from which the code runs; for git it is somebody else's."""
    place = tmp_path / "checkout"
    place.mkdir()
    (place / "code.py").write_text("1\n")
    author = ("-c", "user.name=x", "-c", "user.email=x")
    for arguments in (("init", "-q"), ("add", "code.py"), (*author, "commit", "-q", "-m", "x")):
        subprocess.run([GIT, "-C", str(place), *arguments], check=True)
    monkeypatch.setattr(provenance, "ROOT", place)
    monkeypatch.setattr(provenance, "revision", provenance.revision.__wrapped__)
    replace_git(tmp_path, monkeypatch, f'GIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {GIT} "$@"')
    return place


def replace_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def change(place: Path) -> None:
    (place / "code.py").write_text("2\n")


def add(place: Path) -> None:
    (place / "new.py").write_text("2\n")


@pytest.mark.parametrize("alter, dirty", [(lambda place: None, False), (change, True), (add, True)])
def test_changes_are_known_whoever_owns_the_checkout(checkout: Path, alter: Callable[[Path], Any], dirty: bool) -> None:
    alter(checkout)
    found = provenance.revision()
    assert len(found["revision"]) == 40
    assert (found["dirty"], found["diff_hash"] is not None) == (dirty, dirty)


def test_the_repository_of_a_hook_that_we_run_in_is_not_meant(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(checkout)
    before = provenance.revision()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other.git"))
    assert provenance.revision() == before


@pytest.mark.parametrize("script", ["exit 128", None])
def test_where_git_does_not_answer_nobody_knows(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script:
        replace_git(tmp_path, monkeypatch, script)
    else:
        (tmp_path / "bin" / "git").unlink()
    assert provenance.revision() == {"revision": None, "dirty": None, "diff_hash": None}
