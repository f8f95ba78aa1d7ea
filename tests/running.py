"""Runs inside a test's process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.config.methods import method_options
from harness.config.options import DATA, Config, Evaluate, TeacherSet, Train
from harness.run.checks import validate
from harness.run.run import execute
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.store.record import read_record
from harness.training.data import Dataset
from harness.training.trainer import Trainer
from methods.baselines.supervised import Supervised
from methods.method import Teachers

TINY = Train(epochs=2, batch_size=50, lr=0.05, warmup_epochs=0, steps_per_epoch=3, checkpoint_every=1)


def configure(runs: Path, method: str = "kd", data: str = "digits", **changes: Any) -> dict[str, Any]:
    """A run's configuration; `changes` are dotted options with `__` for the dots: `train__epochs=3`."""
    plain = asdict(Config(method=method_options(method)(), data=DATA[data], train=TINY, runs=str(runs)))
    config = {key: value for key, value in plain.items() if key not in ("defaults", "hydra")}
    config["teachers"] = asdict(TeacherSet(size=2)) | {"train": {}}
    config["evaluate"] = asdict(Evaluate())
    for key, value in changes.items():
        *groups, name = key.split("__")
        node = config
        for group in groups:
            node = node[group]
        if name not in node:
            raise KeyError(key)
        node[name] = value
    validate(config)
    return config


def run(runs: Path, method: str = "kd", data: str = "digits", **changes: Any) -> dict[str, Any]:
    """The record of a run as it is read from disk."""
    config = configure(runs, method, data, **changes)
    execute(config, Console())
    return read_record(run_directory(config))


def make_trainer(data: Dataset, method=None, teachers=(), **recipe) -> Trainer:
    """A trainer with a short recipe, changed by `recipe`."""
    options = asdict(Train(epochs=4, batch_size=8, lr=0.1, warmup_epochs=0)) | recipe
    return Trainer(method or Supervised(), data, Teachers(teachers), options, padding=0, flip=False, seed=0)
