"""The teachers of a run, from the bank: their networks, the logits that they recorded, and what they answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from harness.config import run_directory
from harness.data import Dataset
from harness.data.augmentation import Augmentation, count_views
from harness.data.changes import image_changes
from harness.plan import teacher_configs
from harness.predictions import SPLITS, read_logits
from harness.progress import Console
from harness.training import Stop
from harness.views import CachedTeachers, ViewCache, is_worth_it
from harness.weights import read_network
from methods.method import Method, Teachers


class Bank:
    """The finished teachers of a run's set, in member order; none where its method learns from none."""

    def __init__(self, config: dict[str, Any], data: Dataset, fingerprint: str, device: torch.device):
        self.config, self.data, self.fingerprint, self.device = config, data, fingerprint, device
        self.model = config["teachers"]["model"] or config["model"]
        self.directories = [run_directory(teacher) for teacher in teacher_configs(config)]
        self.names = [directory.name for directory in self.directories]

    def networks(self, count: int | None = None) -> list[nn.Module]:
        """The first `count` teachers, or all of them."""
        return [read_network(place, self.model, self.data).to(self.device) for place in self.directories[:count]]

    def logits(self) -> dict[str, np.ndarray]:
        """What they recorded, by split: [M, N, K]; empty where there are none."""
        members = [read_logits(directory) for directory in self.directories]
        return {name: np.stack([member[name] for member in members]) for name in SPLITS} if members else {}

    def teachers(self, method: Method, console: Console, stop: Stop) -> Teachers:
        """Those that the method learns from, with their answers for every view of the train images where looking these
        up is worth it. Raises Interrupted.
        """
        members = self.networks(method.teachers)
        cache = self.view_cache(method, console, stop)
        if cache is None:
            return Teachers(members)
        try:
            answers = [
                cache.answers(directory, member).to(self.device)
                for directory, member in zip(self.directories, members, strict=False)
            ]
        except OSError as error:  # such as somebody else's bank, or a full disk
            console.say(f"the teachers' views cannot be kept in the bank, they are asked instead: {error}")
            return Teachers(members)
        return CachedTeachers(members, answers)

    def view_cache(self, method: Method, console: Console, stop: Stop) -> ViewCache | None:
        """Where the answers for views are kept; None where they are not worth it."""
        data, recipe, images = self.config["data"], self.config["train"], self.data.train.images
        if not isinstance(images, torch.Tensor) or recipe["mixup"] or image_changes(data, self.data):
            return None  # what is shown is no view that could be numbered
        wanted, views = self.config["teachers"]["cache"], count_views(data["padding"], data["flip"])
        if not is_worth_it(wanted, method, recipe["epochs"], len(images), views, self.data.classes):
            return None
        augmentation = Augmentation(images, data["padding"], data["flip"], self.config["seed"])
        return ViewCache(augmentation, self.data.classes, self.fingerprint, console, stop)
