"""A finished run's student, taken out of it: checked, exported and measured beside a plain network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import ConfigError
from harness.evaluation.evaluation import count_flops
from harness.evaluation.predictions import check_predictions
from harness.run.data import compare_data, load_images
from harness.run.export import write
from harness.run.network import build_network, read_network
from harness.run.teachers import bank_of, teachers_of
from harness.runtime.console import Console
from harness.store.files import Damaged
from harness.store.identity import run_directory
from harness.store.record import check_files, read_record
from harness.store.runs import holds_run
from harness.training.data import Dataset
from harness.training.data.augmentation import to_unit

LATENCY_BATCH = 32
LATENCY_ROUNDS = 30


@torch.inference_mode()
def latencies(groups: Sequence[Sequence[nn.Module]], images: Tensor, rounds: int = LATENCY_ROUNDS) -> list[float]:
    """Seconds that each group of networks needs for the images, one network after the other: medians over rounds.

    The groups take turns, so that whatever else the machine does meets all of them alike.
    """
    times: list[list[float]] = [[] for _ in groups]
    for turn in range(rounds + 1):
        for group, seconds in zip(groups, times, strict=True):
            start = time.perf_counter()
            for network in group:
                network(images)
            if turn:  # the first warms up
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def find_ensemble(run: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Configurations of the teachers that a run learned from. Raises ConfigError and Damaged where nobody knows them: the
    networks of an imported set are known to its bank alone.
    """
    config = record["config"]
    teachers = teachers_of(run, config)
    if [run_directory(teacher).name for teacher in teachers] != record["provenance"]["teachers"]:
        raise ConfigError(f"it learned from others than {bank_of(run, config)} has or would train")
    return teachers


def measure(
    network: nn.Module, config: dict[str, Any], teachers: list[dict[str, Any]], data: Dataset
) -> dict[str, dict[str, float]]:
    """Parameters, FLOPs an image and latency of LATENCY_BATCH images, of student, plain network and ensemble."""
    groups = {"student": [network], "plain": [build_network(config, data).eval()]}
    if teachers:
        groups["ensemble"] = [build_network(teacher, data).eval() for teacher in teachers]
    rows = torch.arange(LATENCY_BATCH) % len(data.test)
    seconds = latencies(list(groups.values()), to_unit(data.test.images[rows]))
    return {
        name: {
            "parameters": sum(p.numel() for one in group for p in one.parameters()),
            "flops": sum(count_flops(one, data.test.images[:1]) for one in group),
            "latency_s": latency,
        }
        for (name, group), latency in zip(groups.items(), seconds, strict=True)
    }


def table(found: dict[str, dict[str, float]]) -> Any:
    """A rich table of what was measured, with ratios to the plain network."""
    from rich.table import Table

    shown = Table(title=f"ratios to the plain network; latency of {LATENCY_BATCH} images", title_justify="left")
    for column in ("", "parameters", "MFLOP an image", "latency ms"):
        shown.add_column(column, justify="right" if column else "left")
    plain = found["plain"]
    for name, values in found.items():
        cells = (f"{values['parameters']:,}", f"{values['flops'] / 1e6:.2f}", f"{1000 * values['latency_s']:.2f}")
        ratios = (values[key] / plain[key] for key in ("parameters", "flops", "latency_s"))
        shown.add_row(name, *(f"{cell} ({ratio:.2f})" for cell, ratio in zip(cells, ratios, strict=True)))
    return shown


def load_student(run: Path, console: Console) -> tuple[nn.Module, dict[str, Any], Dataset]:
    """The network that a finished run deploys, in evaluation mode on the CPU, its record and data. Raises ConfigError
    where there is none or the data are others by now, and Damaged.
    """
    record = read_record(run)
    if record is None or record["status"] != "done":
        raise ConfigError(f"{run} is no finished run: {record['status'] if record else 'it has no record.json'}")
    data, fingerprint = load_images(record["config"]["data"], torch.device("cpu"), console)
    same, how = compare_data(record["provenance"]["data"], data, fingerprint)
    if not same:
        raise ConfigError(f"these data are not those of {run} ({how})")
    if how:
        console.say(f"note: {how}")
    check_files(run, record)
    network = read_network(run, record["config"], data)
    return network, record, data


def deploy(run: Path, folder: Path, onnx: bool, console: Console) -> dict[str, dict[str, float]]:
    """Check, export and measure a run's student; returns the measurements. Raises ConfigError where it cannot, and Damaged."""
    if onnx and not (find_spec("onnx") and find_spec("onnxscript")):
        raise ConfigError("--onnx needs extra packages: pip install onnx onnxscript")
    if holds_run(folder):
        raise ConfigError(f"{folder} is a run's own folder, whose student would be replaced: choose another with --to")
    network, record, data = load_student(run, console)
    difference = check_predictions(run, network, data)
    console.say(f"repeats {len(data.test):,} recorded predictions (largest difference of a logit {difference:.2g})")
    try:
        paths = write(folder, network, record, data, onnx)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.strerror}; choose another folder with --to FOLDER"
        ) from error
    for path in paths:
        console.say(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    try:
        teachers = find_ensemble(run, record)
    except (ConfigError, Damaged) as error:
        console.say(f"note: compared with no ensemble: {error}")
        teachers = []
    found = measure(network, record["config"], teachers, data)
    console.show(table(found))
    return found
