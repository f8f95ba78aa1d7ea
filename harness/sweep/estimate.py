"""How long a sweep keeps devices busy: by records of like runs, else by what the steps of its runs must compute."""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from harness.config.methods import build_method
from harness.store.files import Damaged
from harness.store.record import read_record
from harness.sweep.plan import Plan

Config = dict[str, Any]
ENOUGH = 1000  # records of a folder, for an estimate
TERAFLOPS = (
    30.0  # a GPU's in training steps, until records say more: an assumption, a third of what such cards are sold by
)
# Classes, channels, pixels a side (0: data.image_size) and images that are trained on, of published sets.
SETS = {
    "cifar10": (10, 3, 32, 45_000),
    "cifar100": (100, 3, 32, 45_000),
    "svhn": (10, 3, 32, 68_257),
    "fashion_mnist": (10, 1, 28, 55_000),
    "tiny_imagenet": (200, 3, 64, 90_000),
    "imagenet": (1000, 3, 0, 1_231_167),
}


def describe_time(plan: Plan, folder: Path) -> str:
    """How long devices are busy, and by what that is known."""
    todo = plan.to_train()
    if not todo:
        return "about 0.00 hours"
    measured, known, unit = estimate_hours(plan, folder)
    if known:
        return f"about {measured * len(todo) / known:.2f} {unit} (by records of the kind of {known} of the {len(todo)})"
    computed = [compute_hours(config) for config in todo]
    if None in computed:
        return "no estimate of the time: no record of such runs yet"
    return (
        f"about {sum(computed):,.1f} GPU-hours (no record of such runs yet: what their steps compute, at {TERAFLOPS:g} "
        "teraflop/s)"
    )


def estimate_hours(plan: Plan, runs: Path) -> tuple[float, int, str]:
    """Hours of devices that the plan's runs will take by records of like runs in `runs` and the bank; how many of the
    plan's runs have such records; and whether the hours are GPU-hours or CPU-hours.

    A like run has the same method, data set, number of train images, model and number of epochs; the median of its kind
    counts, of as many records as are enough.
    """
    todo, devices = Counter(map(kind, plan.to_train())), set()
    seconds: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for folder in {runs, *(teacher.parent for teacher in plan.teachers)} if todo else ():
        for file in itertools.islice(folder.glob("*/record.json"), ENOUGH):
            with contextlib.suppress(Damaged):
                record = read_record(file.parent)
                if record is not None and record["status"] == "done":
                    where = record["provenance"]
                    seconds[kind(record["config"])].append(record["cost"]["wall_s"] * where.get("devices", 1))
                    devices.add(where["device"])
    known = {one: count for one, count in todo.items() if one in seconds}
    total = sum(count * statistics.median(seconds[one]) for one, count in known.items())
    return total / 3600, sum(known.values()), "CPU-hours" if devices == {"cpu"} else "GPU-hours"


def kind(config: Config) -> tuple[Any, ...]:
    data = config["data"]
    return config["method"]["name"], data["name"], data.get("train"), config["model"], config["train"]["epochs"]


def compute_hours(config: Config) -> float | None:
    """Hours of a GPU for a run's steps, by passes, operations of a pass and TERAFLOPS; None where the size of its data set
    is not known before it is read.
    """
    data, recipe = config["data"], config["train"]
    if data["name"] not in SETS:
        return None
    classes, channels, size, images = SETS[data["name"]]
    method, members = build_method(config), config["teachers"]["size"]
    steps = (data["train"] or images) // recipe["batch_size"]
    steps = min(steps, recipe["steps_per_epoch"] or steps) * method.epochs(recipe["epochs"], members)
    pass_ = recipe["batch_size"] * operations(config["model"], classes, channels, size or data["image_size"])
    return steps * method.passes(members) * pass_ / (TERAFLOPS * 1e12) / 3600


@functools.cache
def operations(model: str, classes: int, channels: int, size: int) -> int:
    """Floating-point operations of one image through a network of the harness's own, which is not really made."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from harness.training import networks

    with torch.device("meta"):
        network = networks.build(model, classes, (0.5,) * channels, (0.5,) * channels, size=size).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, channels, size, size))
    return counter.get_total_flops()
