"""`record.json`, which a run writes last: what it must hold, and how it is read and written.

A run directory holds
    record.json           written last; see `SCHEMA` below
    history.jsonl         one line an epoch: epoch, step, loss, lr, images_per_s, elapsed_s[, validation]
    predictions.npz       validation_logits, test_logits [N, K] float16; validation_labels, test_labels [N] int64
    student.safetensors   the deployed network
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

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.store.face import Done, Noted, Record
from harness.store.files import Damaged, check_shape, digest, read_bytes, read_json, write_json
from harness.store.identity import run_hash
from harness.store.predictions import PREDICTIONS
from harness.store.weights import WEIGHTS

VERSION = 2  # 2: digests of the record and of the run's files
RECORD = "record.json"
METRICS = ("acc", "nll", "brier", "ece", "nll_ts", "ece_ts")  # those that tables show
FILES = (WEIGHTS, PREDICTIONS)  # of a done run, beside its record
RUN = re.compile(r"-([0-9a-f]{12})$")  # a run's directory ends with its hash

SCHEMA = {
    "version": "int, VERSION of the code that wrote it",
    "hash": "the run's content hash (harness.config.run_hash), also the end of the directory's name",
    "status": "done, failed, diverged or interrupted",
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
    "notes": ["what is odd about these numbers, such as a temperature at its bound"],
    "files": {"student.safetensors": "SHA-256 of what the run wrote", "predictions.npz": ""},
    "digest": "hash of all of the record but this",
    "selection": {"epoch": "int, of the chosen checkpoint", "acc": "its validation accuracy"},
    "cost": {
        "wall_s": "seconds from start to record, summed over attempts",
        "device_s": "seconds spent training, summed over attempts",
        "images_per_s": "of training steps, the median epoch's",
        "peak_memory_bytes": "of training steps on a GPU; on a CPU, of the process",
        "parameters": "of the deployed network",
        "flops": "multiply-adds times two, one image through the deployed network",
        "epochs": "int, that it was trained; some methods take more than the recipe's, 0: none",
        "step_passes": "of a training step by the cost model, in forward passes of one plain network on the batch",
        "inference_passes": "of the deployed network, in passes of a plain one; absent: 1",
    },
    "provenance": {
        "harness": "version",
        "versions": {"python": "", "torch": "", "torchvision": "", "numpy": ""},
        "git": {
            "revision": "or None",
            "dirty": "bool, or None: unknown",
            "diff_hash": "hash of uncommitted changes, or None",
        },
        "code": "hash of the sources of harness and methods",
        "method_defaults": {"option": "its default at the time"},
        "host": "name",
        "device": "cpu, or the GPU's name",
        "threads": "int, of torch on the CPU",
        "devices": "int, on how many it was trained; absent: 1",
        "arithmetic": ["how it was computed, in words, of every attempt that did so in another way"],
        "gpu": "None, or {cuda, cudnn, driver, deterministic, visible}",
        "compiled": "None, or {mode, graphs, not_compiled: {reason: count}, not_captured}, of torch.compile",
        "captured": "None, or {graphs, failure}: steps captured as CUDA graphs, and why none were",
        "slurm": "None, or {job_id, array_job_id, array_task_id, node, restarts}",
        "command": "the command line",
        "started": "ISO 8601, UTC",
        "ended": "ISO 8601, UTC",
        "attempts": "int, 1 where the run was never interrupted",
        "streams": {"purpose": "the seed that its random stream began with"},
        "teachers": ["names of the bank's teachers, in member order"],
        "teacher_weights": {"teacher's name": "SHA-256 of the weights that were learned from"},
        "teacher_views": "bool, whether teachers' answers came from the bank's views",
        "data": "fingerprint of the data and split",
        "imported": "absent, or {file, sha256, mean, sd, classes} of a teacher that was trained elsewhere",
        "asked_later": "absent, or {git, code, host, device, command} of what evaluated it after it was done",
    },
}


class Newer(Damaged):
    """A record of a version that this code does not know; only its own code can say what it means."""

    mend = False


def write_record(directory: Path, record: dict[str, Any], replace: bool = True) -> dict[str, Any]:
    """Write `record.json`, the last file of a run, with a digest of itself; returns it so. `replace` as in
    write_atomically. Raises ValueError for numbers that are none.
    """
    record = {**record, "digest": digest_of(record)}
    write_json(directory / RECORD, record, 1, replace)
    return record


def digest_of(record: dict[str, Any]) -> str:
    """A hash of all of a record but its `digest`."""
    kept = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


def is_sealed(value: dict[str, Any]) -> bool:
    """Whether a value's `digest` is that of all the rest of it; with numbers that are none it has none."""
    try:
        return value.get("digest") == digest_of(value)
    except ValueError:
        return False


def read_record(directory: Path, name: str = RECORD) -> dict[str, Any] | None:
    """The record of a run directory, or None where there is none yet.

    Raises Damaged where it cannot be believed: no record, edited, of another run than its directory is named for, of
    another configuration than its hash says; Newer; Unreadable.
    """
    path = directory / name
    record = read_json(path, dict[str, Any])
    if record is None:
        return None
    check_outline(path, record.get("version"), record.get("hash"))
    check_shape(record, Record, str(path))
    check_shape(record, Noted, str(path))
    if record["version"] > 1 or record["status"] == "done":
        check_seal(path, record)
    if record["status"] == "done":
        check_numbers(path, record)
    elif record["error"] is None or "message" not in record["error"]:
        raise Damaged(f"{path} says {record['status']}, but not why")
    return record


def check_outline(path: Path, version: Any, found: Any) -> None:
    """Raise Damaged where a record is not of a known version, or not of the run that its directory is named for."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Damaged(f"{path} is not a run record (no version)")
    if version > VERSION:
        raise Newer(f"{path} is of version {version}, this code reads up to {VERSION}: upgrade it to read this record")
    named = RUN.search(path.parent.name or path.absolute().parent.name)
    if named and named[1] != found:
        raise Damaged(f"{path} is the record of another run ({found})")


def check_seal(path: Path, record: dict[str, Any]) -> None:
    """Raise Damaged where a record is not as it was written, or its hash is not its configuration's.

    Version 1 has no digest, and its hash may be of an older rule; but of a configuration it is.
    """
    try:
        first = record["version"] == 1 and "digest" not in record and not record.get("files")
        intact = first or is_sealed(record)
        known = run_hash(record["config"]) == record["hash"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{path} has no whole configuration ({type(error).__name__}: {error})") from error
    if not intact:
        raise Damaged(f"{path} was changed after it was written: its digest does not fit")
    if not known and record["version"] > 1:
        raise Damaged(f"{path} has a configuration of another hash than {record['hash']}")


def check_numbers(path: Path, record: dict[str, Any]) -> None:
    """Raise Damaged where a `done` record lacks what its readers take for granted."""
    if "student" not in (record["metrics"] or {}):
        raise Damaged(f"{path} says done, but has no metrics of the student")
    check_shape(record, Done, str(path))
    for who, splits in record["metrics"].items():
        for split in {"test", *splits}:
            found = splits.get(split, {})
            if lacking := [metric for metric in METRICS if not math.isfinite(found.get(metric, math.nan))]:
                raise Damaged(f"{path} says done, but has no {', '.join(lacking)} of the {who} on {split} data")


def check_files(directory: Path, record: dict[str, Any], *names: str) -> None:
    """Raise Damaged where a run's files (or those named) are not those that its record knows by their digests.

    Records of version 1 know none.
    """
    known = record.get("files") or {}
    for name in names or known:
        path = directory / name
        try:
            if name in known and digest(path) != known[name]:
                raise Damaged(f"{path} is not the file that its run wrote: its digest does not fit the record")
        except FileNotFoundError as error:
            raise Damaged(f"{path} is missing") from error


def taught_otherwise(record: dict[str, Any], weights: dict[str, str]) -> str | None:
    """The first of these teachers, their weights' SHA-256 by name, that is another than the run learned from; None where
    there is none. Earlier records know only names.
    """
    learned_from = record["provenance"].get("teacher_weights", {})
    return next((name for name, found in weights.items() if learned_from.get(name, found) != found), None)


def lost_files(directory: Path, record: dict[str, Any]) -> list[str]:
    """Which files of a `done` run are not there any more; without them it is not done."""
    names = record.get("files") or FILES
    return [name for name in names if not (directory / name).is_file()] if record["status"] == "done" else []


class Outline(msgspec.Struct):
    """What a record says first; the rest of it is not looked at."""

    version: int
    hash: str
    status: Literal["done", "failed", "diverged", "interrupted"]


def read_status(directory: Path) -> str | None:
    """The status in a run's record, None where there is none yet. For looking at thousands: it reads a record's
    outline only, ten times as fast as all of it. Raises Damaged.
    """
    path = directory / RECORD
    content = read_bytes(path)
    if content is None:
        return None
    try:
        outline = msgspec.json.decode(content, type=Outline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"{path} is not a run record ({error})") from error
    check_outline(path, outline.version, outline.hash)
    return outline.status


def settled(directory: Path) -> dict[str, Any] | None:
    """A record that says how a run ended; an interrupted run has not, and a damaged record says nothing."""
    try:
        record = read_record(directory)
    except Damaged:
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
        "notes": [],
        "files": {},
        "cost": {"wall_s": None},
        "provenance": {"slurm": slurm, "teachers": [], "data": None},
    }
