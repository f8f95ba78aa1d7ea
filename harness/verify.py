"""`python -m harness.verify RUN... [--train]`: does a record hold?

Each RUN is a finished run's directory, or a folder of them. Of each run

    its files     are those that its record knows by their digests, its record is as it was written
    its data      are those that it was trained on
    its numbers   come out again where the stored student is evaluated once more
    --train       and where it is trained once more, in a folder of its own (bit for bit on as many CPUs with the same threads),
                  with its diagnostics, shifted and unknown images

A line says what holds and what does not; the exit status is 1 where anything does not, 2 where there is nothing to verify.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.config import ConfigError
from harness.evaluation.evaluation import judge_all
from harness.evaluation.predictions import check_predictions, labels_of, predict_splits
from harness.run.bank import check_teacher
from harness.run.data import compare_data, load_images
from harness.run.network import read_network
from harness.run.run import execute
from harness.run.teachers import bank_of, teacher_configs
from harness.runtime.console import Console, complain, one_line, run_command
from harness.store.files import Damaged
from harness.store.identity import is_teacher, run_directory
from harness.store.predictions import read_predictions
from harness.store.record import METRICS, check_files, lost_files, read_record, taught_otherwise
from harness.store.runs import find_runs
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


def find_teachers(directory: Path, config: Record) -> list[Path]:
    """The teachers of a run, their files checked."""
    bank = bank_of(directory, config)
    found = [run_directory(teacher) for teacher in teacher_configs({**config, "bank": str(bank)})]
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m harness.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, or a folder of runs")
    parser.add_argument("--train", action="store_true", help="train each run once more, too")
    options = parser.parse_args(arguments)
    console = Console()
    places = []
    for folder in options.runs:
        if not folder.is_dir():
            complain(f"no folder {folder}")
            return 2
        places += find_runs(folder)
    if not places:
        complain(f"no runs in {', '.join(map(str, options.runs))}")
        return 2
    broken = unclaimed = 0
    for place in places:
        try:
            console.say(f"{one_line(place.name)}: {verify(place, options.train, console)}")
        except Unclaimed as error:
            unclaimed += 1
            console.say(f"{one_line(place.name)}: {error}")
        except (Broken, Damaged, ConfigError) as error:
            broken += 1
            console.say(f"{one_line(place.name)}: DOES NOT HOLD: {error}")
        except Exception as error:  # noqa: BLE001  whatever stands in the way of one run, the others are looked at
            broken += 1
            console.say(f"{one_line(place.name)}: COULD NOT BE VERIFIED: {type(error).__name__}: {error}")
    console.close()
    rest = f"; {unclaimed} claim no numbers" if unclaimed else ""
    console.say(f"{len(places) - broken - unclaimed} of {len(places)} runs hold{rest}")
    return 1 if broken else 2 if unclaimed == len(places) else 0


if __name__ == "__main__":
    run_command(main)
