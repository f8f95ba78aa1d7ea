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
    """Copy the packages that jobs import to FOLDER/.code/HASH, once for each state of the code; returns that folder.

    A job that starts there imports the copy, whatever happens to the original. The copy keeps the revision.
    """
    files = sorted(file for name in PACKAGES for file in (ROOT / name).rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    digest.update(json.dumps(revision()).encode())
    place = (folder / ".code" / digest.hexdigest()[:16]).resolve()
    if place.exists():
        return place
    scratch = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}")
    for file in files:
        copy = scratch / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    (scratch / REVISION_FILE).write_text(json.dumps(revision()))
    try:
        scratch.rename(place)
    except OSError:  # another sweep took the same snapshot meanwhile
        shutil.rmtree(scratch)
        if not place.exists():
            raise
    return place
