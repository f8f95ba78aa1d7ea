"""Where a result came from: versions, code revision, machine, job."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import __version__

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("harness", "methods")  # what runs import
REVISION_FILE = "revision.json"  # beside the packages in a snapshot of the code, which has no .git


@functools.cache
def revision() -> dict[str, Any]:
    """Git revision of the checkout that the code runs from, and a hash of its uncommitted changes. Where git does not
    answer, nobody knows whether there are any, and `dirty` is None.
    """
    if (ROOT / REVISION_FILE).exists():
        return json.loads((ROOT / REVISION_FILE).read_text())
    if not (ROOT / ".git").exists():
        return {"revision": None, "dirty": False, "diff_hash": None}
    try:
        head = git("rev-parse", "HEAD").decode().strip()
        changes = git("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", "*.py", "*.yaml")
        untracked = git("ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.yaml").split(b"\0")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {"revision": None, "dirty": None, "diff_hash": None}
    for name in filter(None, untracked):
        changes += name + b"\0" + (ROOT / os.fsdecode(name)).read_bytes()
    digest = hashlib.sha256(changes).hexdigest()[:12] if changes else None
    return {"revision": head, "dirty": bool(changes), "diff_hash": digest}


def git(*arguments: str) -> bytes:
    """What git says of this checkout, whoever owns it (its code is running), and whatever repository a hook that we may
    run in is of.
    """
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def sources(modules: Iterable[str] = ()) -> dict[str, bytes]:
    """Every module that runs import: its path from where it is found, and its content.

    modules: those of other packages that a run needs (see config/brought.py); of each, all of its package. Raises OSError.
    """
    files = {str(file.relative_to(ROOT)): file for name in PACKAGES for file in sorted((ROOT / name).rglob("*.py"))}
    for name in sorted({module.partition(".")[0] for module in modules}):
        files |= brought_files(name)
    return {name: file.read_bytes() for name, file in files.items()}


def brought_files(name: str) -> dict[str, Path]:
    """The sources of a module or package at the top, by their path from where it is found; hidden folders are none of it."""
    spec = find_spec(name)
    if spec is None:
        return {}
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return {file.name: file} if file.suffix == ".py" else {}
    found = {}
    for folder in map(Path, spec.submodule_search_locations):
        for file in sorted(folder.rglob("*.py")):
            place = file.relative_to(folder.parent)
            if not any(part.startswith(".") for part in place.parts):
                found[str(place)] = file
    return found


def digest(contents: dict[str, bytes]) -> str:
    """Sixteen hex digits: equal where files of the same names have the same contents."""
    found = hashlib.sha256()
    for name, content in contents.items():
        found.update(name.encode() + b"\0" + content + b"\0")
    return found.hexdigest()[:16]


@functools.cache
def code(modules: tuple[str, ...] = ()) -> str:
    """A hash of this package's sources, the methods' and those of other modules that a run needs: equal where two runs ran
    the same code, commits or not.
    """
    return digest(sources(modules))


def slurm() -> dict[str, Any] | None:
    """The SLURM job that this process runs in, or None."""
    environment = os.environ
    if "SLURM_JOB_ID" not in environment:
        return None
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return {
        "job_id": environment["SLURM_JOB_ID"],
        "array_job_id": array,
        "array_task_id": environment.get("SLURM_ARRAY_TASK_ID"),
        "node": environment.get("SLURMD_NODENAME", socket.gethostname()),
        "restarts": restarts(),
    }


def own_job() -> str | None:
    """The id by which SLURM's commands know the job that this process runs in: JOB, or ARRAY_TASK."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has begun this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def describe(device: str, threads: int, modules: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a record's provenance that say where it was made. device: cpu, or the GPU's name; threads: of torch;
    modules: see `sources`.
    """
    return {
        "harness": __version__,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        },
        "git": revision(),
        "code": code(modules),
        "host": socket.gethostname(),
        "device": device,
        "threads": threads,
        "slurm": slurm(),
        "command": shlex.join(sys.argv),
    }
