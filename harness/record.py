"""What a run leaves behind: the schema of `record.json`, and files that are whole or absent.

Nothing here imports torch, so that status and analysis start quickly.

A run directory holds
    record.json           written last; see `SCHEMA` below
    history.jsonl         one line an epoch: epoch, step, loss, lr, images_per_s, elapsed_s[, validation]
    predictions.npz       validation_logits, test_logits [N, K] float16; validation_labels, test_labels [N] int64
    student.safetensors   the deployed plain network
    run.log               what the run said
    progress.json         while it runs: epoch, epochs, seconds left (read by harness.status)
    trained.json          while it is evaluated again: its record until then
    *.aside               while it is being submitted: what it had come to before
    config.json           where it runs as a job or in the pool: the configuration
    submission.json       where it runs as a job: job id, log, time of submission
    attempts.jsonl        one line for each thing that happened to its jobs
    checkpoint.pt         while it runs
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

VERSION = 1
RECORD, TRAINED, SUBMISSION = "record.json", "trained.json", "submission.json"
ASIDE = ".aside"
STATUSES = ("done", "failed", "diverged", "interrupted")

SCHEMA = {
    "version": "int, VERSION of the code that wrote it",
    "hash": "the run's content hash (harness.config.run_hash), also the end of the directory's name",
    "status": "one of STATUSES",
    "error": "None, or {type, message, traceback, log, slurm_state}",
    "config": "the full composed configuration, nested",
    "metrics": {
        # acc in [0, 1]; nll in nats; brier; ece in [0, 1]; nll_ts and ece_ts after temperature scaling; temperature
        "student": {
            "validation": "…",
            "test": {"acc": 0, "nll": 0, "brier": 0, "ece": 0, "nll_ts": 0, "ece_ts": 0},
        },
        "teacher": "the same, member 0 of the teacher set",
        "ensemble": "the same, the mean of all teachers' softmaxes",
    },
    "diagnostics": "None, or see harness.diagnostics",
    "shift": "None, or see harness.shift: {source, student: {...}, teacher: {...}, ensemble: {...}}",
    "ood": "None, or see harness.ood: {data set: {student: {...}, teacher: {...}, ensemble: {...}}}",
    "selection": {"epoch": "int, of the chosen checkpoint", "acc": "its validation accuracy"},
    "cost": {
        "wall_s": "seconds from start to record, summed over attempts",
        "device_s": "seconds spent training, summed over attempts",
        "images_per_s": "training throughput",
        "peak_memory_bytes": "on the accelerator, or of the process on a CPU",
        "parameters": "of the deployed network",
        "flops": "multiply-adds times two, one image through the deployed network",
    },
    "provenance": {
        "harness": "version",
        "versions": {"python": "", "torch": "", "torchvision": "", "numpy": ""},
        "git": {"revision": "or None", "dirty": "bool", "diff_hash": "hash of uncommitted changes, or None"},
        "code": "hash of the sources of harness and methods",
        "method_defaults": {"option": "its default at the time"},
        "host": "name",
        "device": "cpu, or the GPU's name",
        "threads": "int",
        "slurm": "None, or {job_id, array_job_id, array_task_id, node, restarts}",
        "command": "the command line",
        "started": "ISO 8601, UTC",
        "ended": "ISO 8601, UTC",
        "attempts": "int, 1 where the run was never interrupted",
        "streams": {"purpose": "the seed that its random stream began with"},
        "teachers": ["names of the bank's teachers, in member order"],
        "teacher_views": "bool, whether teachers' answers came from the bank's views",
        "data": "fingerprint of the data and split",
        "asked_later": "absent, or {git, code, host, device, command} of what evaluated it after it was done",
    },
}


class DamagedRecord(ValueError):
    """A record that is there but cannot be trusted."""


def write_atomically(path: Path, content: bytes | str, replace: bool = True) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part (also over NFS).

    Without `replace` it raises FileExistsError where there is one, whatever this machine's cache believes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with scratch.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path) if replace else os.link(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_record(directory: Path, record: dict[str, Any], replace: bool = True) -> None:
    """Write `record.json`, the last file of a run. `replace` as in write_atomically."""
    write_atomically(Path(directory) / RECORD, json.dumps(record, indent=1), replace)


def read_record(directory: Path, name: str = RECORD) -> dict[str, Any] | None:
    """The record of a run directory, or None where there is none yet.

    Raises DamagedRecord where the file is not a whole record.
    """
    path = Path(directory) / name
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedRecord(f"{path} is not valid JSON ({error})") from error
    if not isinstance(record, dict) or record.get("status") not in STATUSES or "config" not in record:
        raise DamagedRecord(f"{path} is not a run record (no known status or no config)")
    return record


def settled(directory: Path) -> dict[str, Any] | None:
    """A record that says how a run ended; an interrupted run has not, and a damaged record says nothing."""
    try:
        record = read_record(directory)
    except DamagedRecord:
        return None
    return None if record is None or record["status"] == "interrupted" else record


def lacks(record: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What of a run's `evaluate` options a `done` record has no answer to, as such options. Only what needs no training
    counts: a student's members, which diagnostics are about, are gone once they are merged.
    """
    ood = [name for name in wanted["ood"] or () if name not in (record["ood"] or {})]
    return {"diagnostics": False, "shift": bool(wanted["shift"]) and record["shift"] is None, "ood": ood}


def answers(record: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a run with this record need not run again: it is done and knows all that is wanted, or would diverge."""
    return record["status"] == "diverged" or (record["status"] == "done" and not any(lacks(record, wanted).values()))


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
    """Undo `keep_trained`, where more could not be found out; False where there was nothing to undo."""
    try:
        (Path(directory) / TRAINED).replace(Path(directory) / RECORD)
    except FileNotFoundError:
        return False
    return True


def set_aside(directory: Path, anew: bool) -> None:
    """Make a run unfinished before it is submitted: what it has come to goes out of sight. `anew`: its training, too."""
    forget_aside(directory)  # of a command that was killed: older than what is here now
    if not anew:
        keep_trained(directory)
    for name in (RECORD, SUBMISSION, *((TRAINED, "checkpoint.pt") if anew else ())):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).replace(directory / f"{name}{ASIDE}")


def bring_back(directory: Path) -> None:
    """Undo `set_aside`."""
    put_back_trained(directory)
    for path in directory.glob(f"*{ASIDE}"):
        path.replace(path.with_name(path.name.removesuffix(ASIDE)))


def forget_aside(directory: Path) -> None:
    """Remove what `set_aside` left."""
    for path in directory.glob(f"*{ASIDE}"):
        path.unlink()


def failure(
    config: dict[str, Any], run_hash: str, error: dict[str, Any], slurm: dict[str, Any] | None
) -> dict[str, Any]:
    """A `failed` record for a run that could not write its own: its job died. `error` has a type and a message."""
    return {
        "version": VERSION,
        "hash": run_hash,
        "status": "failed",
        "error": {"traceback": None, "log": None, "slurm_state": None, **error},
        "config": config,
        **dict.fromkeys(("metrics", "diagnostics", "shift", "ood", "selection")),
        "cost": {"wall_s": None},
        "provenance": {"slurm": slurm, "teachers": [], "data": None},
    }


def append_event(directory: Path, event: str, **facts: Any) -> None:
    """A line in `attempts.jsonl`: what happened to a run's jobs (started, preempted, time_limit, ended, died)."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    with (Path(directory) / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"event": event, "time": time.time(), **facts}) + "\n")


def read_events(directory: Path) -> list[dict[str, Any]]:
    """The lines of `attempts.jsonl`, oldest first; a last line that a dying job cut short is left out."""
    try:
        lines = (Path(directory) / "attempts.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
