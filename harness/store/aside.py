"""Making a run unfinished without losing what it had come to: files that are renamed, and renamed back."""

from __future__ import annotations

import contextlib
from pathlib import Path

from harness.store.checkpoint import CHECKPOINT
from harness.store.files import Damaged, place, set_damaged_aside
from harness.store.record import RECORD, lost_files, read_record, settled
from harness.store.submission import SUBMISSION

TRAINED = "trained.json"  # the record of a run that is evaluated again, until it has one that says more
ASIDE = ".aside"  # while a run is being submitted
BEFORE = ".before"  # what a run that begins anew had come to, until it has come to as much again


def clear_damaged(directory: Path, name: str = RECORD) -> str | None:
    """Set a record aside that cannot be believed, or whose run has lost its files; returns the line that says so.

    Raises Damaged where it must be left alone: Newer, Unreadable.
    """
    path = Path(directory) / name
    try:
        record = read_record(directory, name)
        if record is not None and (lost := lost_files(directory, record)):
            raise Damaged(f"{path} says done, but {lost[0]} is gone")
    except Damaged as error:
        return set_damaged_aside(path, error)
    return None


def keep_trained(directory: Path) -> bool:
    """Make a `done` run unfinished without losing its training: its record is set aside until more is added to it.
    False where it is not done.
    """
    record = settled(directory)
    if record is None or record["status"] != "done":
        return False
    (Path(directory) / RECORD).replace(Path(directory) / TRAINED)
    return True


def put_back_trained(directory: Path) -> bool:
    """Undo `keep_trained`, where more could not be found out; False where there was nothing to undo, or where the run
    is done by now, with a record that knows more.
    """
    trained, record = Path(directory) / TRAINED, Path(directory) / RECORD
    try:
        place(trained, record)  # unlike a rename never over what somebody writes at this moment
    except FileNotFoundError:
        return False
    except FileExistsError:
        if not trained.exists() or (settled(directory) or {}).get("status") == "done":
            return False
        trained.replace(record)
    trained.unlink(missing_ok=True)
    return True


def set_aside(directory: Path, anew: bool) -> str | None:
    """Make a run unfinished before it is submitted or begun: what it has come to goes out of sight. `anew`: its
    training, too, which is kept until there is another. Returns what there is to say of a damaged record.

    Raises Damaged as `clear_damaged`.
    """
    said = clear_damaged(directory)
    remove(directory, ASIDE)  # of a command that was killed: older than what is here now
    if not anew:
        keep_trained(directory)
        for name in (RECORD, SUBMISSION):
            move(directory / name, directory / f"{name}{ASIDE}")
        return said
    record = settled(directory)
    if record is not None and record["status"] == "done":
        remove(directory, BEFORE)
    for name in (RECORD, SUBMISSION, TRAINED, CHECKPOINT):
        move(directory / name, directory / f"{name}{BEFORE}", replace=False)
    return said


def bring_back(directory: Path, anew: bool) -> None:
    """Undo `set_aside`, but for what was written since."""
    put_back_trained(directory)
    suffix = BEFORE if anew else ASIDE
    for path in directory.glob(f"*{suffix}"):
        move(path, path.with_name(path.name.removesuffix(suffix)), replace=False)


def forget_aside(directory: Path) -> None:
    """The run is submitted: what was set aside for that is forgotten, but not what a run anew had come to before."""
    remove(directory, ASIDE)


def forget_before(directory: Path) -> None:
    """The run has come to something again."""
    remove(directory, BEFORE)


def remove(directory: Path, suffix: str) -> None:
    for path in directory.glob(f"*{suffix}"):
        path.unlink(missing_ok=True)


def move(path: Path, target: Path, replace: bool = True) -> None:
    """Rename a file that may not be there; without `replace` one in its place stays, and it goes."""
    with contextlib.suppress(FileNotFoundError):
        if not replace and target.exists():
            path.unlink()
        else:
            path.replace(target)
