"""A copy of the code as it was at submission, for jobs that may start hours later."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import uuid
from pathlib import Path

from harness.store.provenance import REVISION_FILE, digest, revision, sources


def take(folder: Path) -> Path:
    """Copy the packages that jobs import to FOLDER/.code/HASH, once for each state of the code; returns that
    folder.

    A job that starts there imports the copy, whatever happens to the original. The copy keeps the revision.
    """
    contents = {**sources(), REVISION_FILE: json.dumps(revision()).encode()}
    place = (folder / ".code" / digest(contents)).resolve()
    if place.exists():
        return place
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


def enter(place: Path) -> list[str]:
    """Lines of a shell after which Python imports the copy, wherever else it looks by the user's settings."""
    code = shlex.quote(str(place))
    return [f"cd {code}", f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"']


def import_path(place: Path) -> str:
    """The PYTHONPATH with which a process does so."""
    return os.pathsep.join(filter(None, (str(place), os.environ.get("PYTHONPATH"))))
