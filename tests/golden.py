"""Golden runs: the losses of three optimiser steps of every method on digits.

`python -m tests.golden` shows what changed. `python -m tests.golden --refresh` stores what this code computes,
for a change of the numbers that is meant; the diff of `tests/data/golden.json` shows it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

import methods
from harness import streams
from harness.config.options import DATA, Train
from harness.training import networks
from harness.training.data import load
from harness.training.trainer import Trainer
from methods.method import Teachers

PATH = Path(__file__).parent / "data" / "golden.json"
STEPS, MEMBERS = 3, 3
RECIPE = Train(epochs=1, batch_size=50, lr=0.05, warmup_epochs=0)
DIGITS = 6
TOLERANCE = 10 ** (1 - DIGITS)  # relative: one unit of the last digit that is stored, at least


def losses(method: str) -> list[float]:
    """The first losses of a run with seed 0 and freshly initialised teachers, without warm-up."""
    torch.set_num_threads(1)
    data = load(asdict(DATA["digits"]))

    def network(seed: int | str) -> torch.nn.Module:
        generator = streams.generator(seed, "init")
        return networks.build("preresnet_tiny", data.classes, data.mean, data.sd, generator)

    cls = methods.load(method)
    count = MEMBERS if cls.teachers is None else cls.teachers
    teachers = Teachers([network(f"teacher/0/{m}") for m in range(count)])
    trainer = Trainer(cls(), data, teachers, asdict(RECIPE), padding=1, flip=False, seed=0)
    training = trainer.start(network(0))
    training.student.train()
    found = []
    for batch in trainer.batches.epoch(0):
        parts = trainer.take_step(training, batch)
        found.append(float(f"{float(parts['loss'].detach()):.{DIGITS}g}"))
        if len(found) == STEPS:
            return found
    raise AssertionError(f"an epoch of digits has fewer than {STEPS} steps")


def read() -> dict[str, list[float]]:
    """The stored losses by method."""
    return json.loads(PATH.read_text())["losses"] if PATH.exists() else {}


def difference(method: str, stored: list[float], now: list[float]) -> str:
    """What changed, a line a step; empty where nothing did."""
    if len(stored) == len(now) and all(abs(a - b) <= TOLERANCE * abs(a) for a, b in zip(stored, now, strict=True)):
        return ""
    version = json.loads(PATH.read_text())["torch"]
    lines = [f"{method}: losses differ (stored with torch {version}, now {torch.__version__})"]
    for step, (a, b) in enumerate(zip(stored, now, strict=False), 1):
        lines.append(f"  step {step}  {a:<10.{DIGITS}g} -> {b:<10.{DIGITS}g}  {(b - a) / abs(a):+.1e}")
    return "\n".join([*lines, "  if this is meant: python -m tests.golden --refresh"])


def main(arguments: list[str]) -> int:
    now = {
        method: losses(method) for method in {**methods.VARIANTS, **methods.BASELINES} if methods.load(method).trained
    }
    stored = read()
    changes = [difference(method, stored[method], now[method]) for method in stored if method in now]
    changes += [f"{method}: new" for method in now if method not in stored]
    changes += [f"{method}: gone" for method in stored if method not in now]
    print("\n".join(filter(None, changes)) or "nothing changed")
    if arguments == ["--refresh"]:
        lines = ",\n".join(f'  "{method}": {json.dumps(values)}' for method, values in now.items())
        PATH.write_text(f'{{\n "torch": "{torch.__version__}",\n "losses": {{\n{lines}\n }}\n}}\n')
        return 0
    return int(any(changes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
