"""The teachers of a run, from the bank: their networks, the logits that they recorded, and what they answer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.config import ConfigError
from harness.config.brought import modules
from harness.run.data import compare_data
from harness.run.folder import finished
from harness.run.network import read_network
from harness.run.teachers import is_imported, teacher_configs
from harness.run.views import CachedTeachers, ViewCache, is_worth_it, place
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted, Stop
from harness.store import provenance
from harness.store.claim import Claimed
from harness.store.files import Damaged, set_damaged_aside
from harness.store.findings import Findings
from harness.store.identity import bank_folder, run_directory
from harness.store.predictions import SPLITS, read_predictions
from harness.store.record import RECORD, check_files, read_record, settled
from harness.store.weights import WEIGHTS, digests, read_weights
from harness.training.data import Dataset
from harness.training.data.augmentation import Augmentation, count_views
from harness.training.data.changes import image_changes
from harness.training.device import device_kind
from harness.training.trainer import Diverged
from methods.method import Method, Teachers

Config = dict[str, Any]


class Bank:
    """The finished teachers of a run's set, in member order; none where its method learns from none."""

    def __init__(self, config: dict[str, Any], data: Dataset, fingerprint: str, device: torch.device):
        self.config, self.data, self.fingerprint, self.device = config, data, fingerprint, device
        self.configs = teacher_configs(config)
        self.directories = [run_directory(teacher) for teacher in self.configs]
        self.names = [directory.name for directory in self.directories]

    def weights(self) -> dict[str, str]:
        """The SHA-256 of their weights, by name: a teacher that was trained again may be another one."""
        return digests(self.directories)

    def networks(self, count: int | None = None) -> list[nn.Module]:
        """The first `count` teachers, or all of them."""
        places = list(zip(self.directories, self.configs, strict=True))[:count]
        return [read_network(place, teacher, self.data).to(self.device) for place, teacher in places]

    def like_student(self) -> bool:
        """Whether all of them have the student's network."""
        return all(
            (teacher["model"], teacher["network"]) == (self.config["model"], self.config.get("network", {}))
            for teacher in self.configs
        )

    def logits(self) -> dict[str, np.ndarray]:
        """What they recorded, by split: [M, N, K]; empty where there are none."""
        members = [read_predictions(directory)[0] for directory in self.directories]
        return {name: np.stack([member[name] for member in members]) for name in SPLITS} if members else {}

    def findings(self) -> Findings:
        """What is known of these teachers on these data."""
        folder = bank_folder(self.config) / "found"
        return Findings(folder, self.code(), self.directories, self.fingerprint, device_kind(self.device))

    def code(self) -> str:
        """A hash of the code that their answers depend on."""
        return provenance.code(tuple(sorted({name for one in self.configs for name in modules(one)})))

    def teachers(self, method: Method, console: Console, stop: Stop, rank: int = 0) -> Teachers:
        """Those that the method learns from, with their answers for every view of the train images where looking these
        up is worth it. Of a run's ranks, each begins with another teacher's, and leaves out what others are at. Raises
        Interrupted.
        """
        members = self.networks(method.teachers)
        cache = self.view_cache(method, console, stop)
        if cache is None:
            return Teachers(members)
        count = len(members)
        turns = [(rank + k) % count for k in range(count)]
        found = {m: cache.answers(self.directories[m], members[m]) for m in turns}
        return CachedTeachers(members, place([found[m] for m in range(count)], self.device, console))

    def view_cache(self, method: Method, console: Console, stop: Stop) -> ViewCache | None:
        """Where the answers for views are kept; None where they are not worth it."""
        data, recipe, split = self.config["data"], self.config["train"], self.data.train
        if not isinstance(split.images, torch.Tensor) or recipe["mixup"] or image_changes(data, self.data):
            return None  # what is shown is no view that could be numbered
        wanted, views = self.config["teachers"]["cache"], count_views(data["padding"], data["flip"])
        teachers, asked = len(self.directories[: method.teachers]), method.known_answers(len(self.directories))
        size = 2 * len(split) * views * self.data.classes * teachers
        if not is_worth_it(wanted, asked, teachers, views, recipe["epochs"], size):
            return None
        augmentation = Augmentation(split, data["padding"], data["flip"], self.config["seed"])
        kind = device_kind(self.device)
        return ViewCache(augmentation, self.data.classes, self.code(), self.fingerprint, kind, console, stop)


def await_teacher(
    config: Config,
    data: Dataset,
    fingerprint: str,
    retry: bool,
    execute: Callable[..., Config],
    console: Console,
    stop: Stop,
) -> None:
    """Return when a teacher is in the bank: trained here, by `execute`, or by whoever holds the claim on it.

    data, fingerprint: those that it must have been trained on; retry: whether one that failed before is trained again.
    Raises Interrupted, ConfigError where it was trained on other data, RuntimeError where it could not be trained.
    """
    directory, said = run_directory(config), False
    while True:
        try:
            record = finished(directory, config, console) or (None if retry else settled(directory))
            if record is None and is_imported(config):
                raise ConfigError(
                    f"{directory} was imported, and is gone: import it again (python -m harness.bank add)"
                )
            if record is None:
                record = execute(config, console, stop)
        except Diverged as error:  # the teacher's record says so; the student did nothing wrong
            raise RuntimeError(f"teacher {directory.name} has diverged: {error}") from error
        except Claimed as claimed:
            if not said:
                console.say(f"waiting for teacher {directory.name}: {claimed}")
                said = True
            if stop():
                raise Interrupted("stopped while waiting for a teacher") from claimed
            continue
        if record["status"] == "done" and (damage := distrust(directory, record)):
            if is_imported(config):
                raise ConfigError(f"{damage}: it was imported, so import it again (python -m harness.bank add)")
            console.say(f"{damage}, and the teacher is trained again")
            continue
        if record["status"] != "done":
            raise RuntimeError(f"teacher {directory.name} has {record['status']}: {record['error']['message']}")
        same, how = compare_data(record["provenance"]["data"], data, fingerprint)
        if not same:
            raise ConfigError(
                f"teacher {directory.name} was trained on other data ({how}); give these a bank of their own: bank=FOLDER"
            )
        if how:
            console.say(f"note: teacher {directory.name}: {how}")
        return


def distrust(directory: Path, record: Config) -> str | None:
    """What is wrong with a teacher's files, in words, once its record is set aside; None where it can be learned from.

    Raises Unreadable.
    """
    try:
        check_teacher(directory, record.get("digest"))
    except Damaged as error:
        if not error.mend:
            raise
        return set_damaged_aside(directory / RECORD, error)
    return None


@functools.lru_cache(maxsize=256)
def check_teacher(directory: Path, digest: str | None) -> None:
    """Raise Damaged unless a teacher's weights and predictions are those that its record, of this digest, knows, and are
    numbers. Once a process: they are read from the start to the end.
    """
    check_files(directory, read_record(directory) or {})
    read_predictions(directory)
    if not all(np.isfinite(array).all() for array in read_weights(directory).values()):
        raise Damaged(f"{directory / WEIGHTS} holds weights that are no numbers")
