"""The one door to files that analysis writes: whole or not at all, and what goes wrong is one line."""

from __future__ import annotations

from pathlib import Path

from analysis.records.errors import AnalysisError
from harness.store.files import write_atomically
from harness.store.runs import holds_run


def write_output(path: str | Path, content: str | bytes) -> Path:
    """Write a file that somebody asked for; its folder is made. Raises AnalysisError where that cannot be done."""
    path = Path(path)
    content = content.encode(errors="replace") if isinstance(content, str) else content
    try:
        if holds_run(folder := path.resolve().parent):
            raise AnalysisError(f"cannot write {path}: {folder} is a run's own folder; choose another")
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # /dev/stdout, a pipe: not to be replaced by a file
        else:
            write_atomically(path.resolve(), content)  # what a link leads to, not the link
    except OSError as error:
        raise AnalysisError(f"cannot write {path}: {error.strerror or error}") from error
    return path
