"""A copy of the code as it was at submission, for jobs that may start hours later."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from pathlib import Path

from harness.provenance import REVISION_FILE, ROOT, revision

PACKAGES = ("harness", "methods")


def take(folder: Path) -> Path:
    """Copy the packages that jobs import to FOLDER/.code/HASH, once for each state of the code; returns that
    folder.

    A job that starts there imports the copy, whatever happens to the original. The copy keeps the revision.
    """
    contents = {
        str(file.relative_to(ROOT)): file.read_bytes()
        for name in PACKAGES
        for file in sorted((ROOT / name).rglob("*.py"))
    }
    contents[REVISION_FILE] = json.dumps(revision()).encode()
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(name.encode() + b"\0" + content + b"\0")
    place = (folder / ".code" / digest.hexdigest()[:16]).resolve()
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
