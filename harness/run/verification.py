"""Whether a run's record holds: its files, its data, its numbers once more."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from harness.evaluation.evaluation import judge_all
from harness.evaluation.predictions import check_predictions, labels_of, predict_splits
from harness.run.bank import check_teacher
from harness.run.data import compare_data, load_images
from harness.run.network import read_network
from harness.run.run import execute
from harness.run.teachers import bank_of, teachers_of
from harness.runtime.console import Console
from harness.store.history import HISTORY, read_history
from harness.store.identity import is_teacher, run_directory
from harness.store.predictions import read_predictions
from harness.store.record import METRICS, check_files, lost_files, read_record, taught_otherwise
from harness.store.weights import digests

# Metrics of predictions in half precision, and of a student that another device or library evaluates.
TOLERANCE = 0.005
CPU = torch.device("cpu")
MORE = ("diagnostics", "shift", "ood")  # what a record may have beside its metrics, of a student with its members

Record = dict[str, Any]


class Broken(ValueError):
    """A record that does not hold; its message says in what."""


class Unclaimed(ValueError):
    """A record that claims no numbers: of a run that failed."""


def verify(directory: Path, train: bool, console: Console) -> str:
    """What holds, in words. Raises Broken, Damaged or ConfigError where something does not, Unclaimed where there is
    nothing that could.
    """
    record = read_record(directory)
    if record is None:
        raise Broken("it has no record")
    if record["status"] != "done":
        raise Unclaimed(f"{record['status']}: it claims no numbers")
    if lost := lost_files(directory, record):
        raise Broken(f"{lost[0]} is gone")
    check_files(directory, record)
    check_history(directory, record)
    config = record["config"]
    data, fingerprint = load_images(config["data"], CPU, console)
    same, how = compare_data(record["provenance"]["data"], data, fingerprint)
    if not same:
        raise Broken(f"its data are others by now ({how})")
    network = read_network(directory, config, data)
    largest = check_predictions(directory, network, data)
    teachers = find_teachers(directory, config)
    if other := taught_otherwise(record, digests(teachers)):
        raise Broken(f"it learned from another {other} than is there now")
    again = judge_all(predict_splits(network, data), labels_of(data), stored_logits(teachers))[0]
    compare(record["metrics"], again)
    said = f"holds: logits within {largest:.2g}, {len(METRICS)} metrics of {', '.join(again)}"
    said += "" if record.get("files") else "; its version has no digests"
    said += f"; {how}" if how else ""
    if train and "imported" in record["provenance"]:
        return f"{said}; it was imported, not trained here"
    if train:
        return said + train_again(record, directory, console)
    left = [part for part in MORE if record.get(part)]
    return said + (f"; {', '.join(left)} not tried again (--train does)" if left else "")


def check_history(directory: Path, record: Record) -> None:
    """Raise Broken where the history, of which curves are drawn, says otherwise of the chosen epoch. A line that a full disk
    took is not missed.
    """
    chosen, told = record["selection"], None
    for line in read_history(directory):
        if line.get("epoch") == chosen["epoch"]:
            told = line.get("validation")
    if isinstance(told, dict) and told.get("acc") != chosen["acc"]:
        raise Broken(
            f"{HISTORY} is of another run: it has validation acc {told.get('acc')} for epoch {chosen['epoch']}, not "
            f"{chosen['acc']}"
        )


def find_teachers(directory: Path, config: Record) -> list[Path]:
    """The teachers of a run, their files checked."""
    found = [run_directory(teacher) for teacher in teachers_of(directory, config)]
    for place in found:
        record = read_record(place)
        if record is None:
            raise Broken(f"its teacher {place} is gone")
        check_teacher(place, record.get("digest"))
    return found


def stored_logits(teachers: list[Path]) -> dict[str, Any]:
    """What teachers recorded, by split: [M, N, K]."""
    import numpy as np

    found = [read_predictions(place)[0] for place in teachers]
    return {name: np.stack([one[name] for one in found]) for name in found[0]} if found else {}


def compare(recorded: Record, again: Record) -> None:
    """Raise Broken for the first metric that is not `is_close`."""
    for who in recorded:
        for split, values in recorded[who].items():
            for metric in METRICS:
                was, now = values[metric], again.get(who, {}).get(split, {}).get(metric, math.nan)
                if not is_close(was, now):
                    raise Broken(f"{metric} of the {who} on {split} data comes out as {now:.6g}, recorded is {was:.6g}")


def is_close(was: float, now: float) -> bool:
    """Within TOLERANCE, absolutely or relatively."""
    return math.isclose(was, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def numbers_in(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested values of JSON, with the names that lead to them."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(inner, f"{place} {name}".strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def train_again(record: Record, directory: Path, console: Console) -> str:
    """Train a run once more, its teachers from the bank; what came out, in words. Raises Broken."""
    with tempfile.TemporaryDirectory() as scratch:
        # The numbers of devices and of threads decide the last digits; threads are a device's, and here devices share them.
        source = record["provenance"]
        devices = source.get("devices", 1)
        threads = source["threads"] * devices if source.get("threads") else None
        config = {**record["config"], "runs": scratch, "force": False, "devices": devices, "threads": threads}
        config["bank"] = scratch if is_teacher(config) else str(bank_of(directory, record["config"]).resolve())
        again = execute(config, console)
    if again["status"] != "done":
        raise Broken(f"trained again it has {again['status']}: {again['error']['message']}")
    compare(record["metrics"], again["metrics"])
    for part in MORE:
        now = dict(numbers_in(again[part]))
        for place, was in numbers_in(record.get(part)):
            if not is_close(was, now.get(place, math.nan)):
                raise Broken(f"{part}, {place}: trained again it comes out as {now.get(place)}, recorded is {was:.6g}")
    same = again["files"] == record.get("files")
    return "; trained again " + ("to the same files" if same else "to the same metrics, not to the same files")
