"""A copy of the code as it was at submission, for jobs that may start hours later."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from harness.store.files import Damaged, read_bytes
from harness.store.provenance import REVISION_FILE, digest, revision, sources


def take(folder: Path, modules: Iterable[str] = ()) -> Path:
    """Copy the packages that jobs import to FOLDER/.code/HASH, once for each state of the code; returns that
    folder. modules: those that runs need besides (see config/brought.py); what of them is found in the current folder only
    is copied, too.

    A job that starts there imports the copy, whatever happens to the original. The copy keeps the revision. One that
    is not what its name says any more is set aside: jobs would run other code than their records claim, or none.
    """
    contents = {**sources(filter(is_here, modules)), REVISION_FILE: json.dumps(revision()).encode()}
    place = (folder / ".code" / digest(contents)).resolve()
    if place.exists():
        if holds(place, contents):
            return place
        place.rename(place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:8]}"))
    scratch = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}")
    for name, content in contents.items():
        copy = scratch / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    try:
        scratch.rename(place)
    except OSError:  # another sweep took the same snapshot meanwhile
        shutil.rmtree(scratch)
        if not place.exists():
            raise
    return place


def is_here(module: str) -> bool:
    """Whether a module lies in the current folder, where no job will look for it."""
    spec = find_spec(module.partition(".")[0])
    places = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
    return any(Path(place).absolute().parent == Path.cwd() for place in places)


def enter(place: Path) -> list[str]:
    """Lines of a shell after which Python imports the copy, wherever else it looks by the user's settings."""
    code = shlex.quote(str(place))
    return [f"cd {code}", f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"']


def import_path(place: Path) -> str:
    """The PYTHONPATH with which a process does so."""
    return os.pathsep.join([str(place), *own_path()])


def own_path() -> list[str]:
    """The folders of this process's PYTHONPATH, as they are meant here, also from where a job starts."""
    folders = os.environ.get("PYTHONPATH", "")
    return [str(Path(folder).absolute()) for folder in folders.split(os.pathsep)] if folders else []


def holds(place: Path, contents: dict[str, bytes]) -> bool:
    """Whether a folder holds these files as they are here, and nothing else that could be imported."""
    there = {str(path.relative_to(place)) for path in place.rglob("*") if path.suffix == ".py" and path.is_file()}
    if not there <= contents.keys():
        return False
    try:
        return all(read_bytes(place / name) == content for name, content in contents.items())
    except Damaged:
        return False
