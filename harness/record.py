"""What a run leaves behind: the schema of `record.json`, and files that are whole or absent.

Nothing here imports torch, so that status and analysis start quickly.

A run directory holds
    record.json           written last; see `SCHEMA` below
    history.jsonl         one line an epoch: epoch, step, loss, lr, images_per_s, elapsed_s[, validation]
    predictions.npz       validation_logits, test_logits [N, K] float16; validation_labels, test_labels [N] int64
    student.safetensors   the deployed plain network
    run.log               what the run said
    progress.json         while it runs: epoch, epochs, seconds left (read by harness.status)
    config.json           where it runs as a job or in the pool: the configuration
    submission.json       where it runs as a job: job id, log, time of submission
    attempts.jsonl        one line for each thing that happened to its jobs
    checkpoint.pt         while it runs
"""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

VERSION = 1
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
        "data": "fingerprint of the data and split",
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
    write_atomically(Path(directory) / "record.json", json.dumps(record, indent=1), replace)


def read_record(directory: Path) -> dict[str, Any] | None:
    """The record of a run directory, or None where there is none yet.

    Raises DamagedRecord where the file is not a whole record.
    """
    path = Path(directory) / "record.json"
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
    """A line in `attempts.jsonl`: what happened to a run's jobs (started, preempted, time_limit, ended)."""
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
