"""What all ranks of a run do, and do alike: make the student and its teachers, train, choose, and answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import streams
from harness.config import ConfigError
from harness.config.methods import build_method
from harness.evaluation.evaluation import Evaluation
from harness.evaluation.predictions import predict_splits
from harness.run.bank import Bank
from harness.run.checks import validate_shares
from harness.run.network import build_network
from harness.runtime.console import Console
from harness.runtime.interruption import Stop
from harness.store.predictions import Arrays
from harness.training import compilation, ranks
from harness.training.batch_norm import separate, synchronise
from harness.training.data import Dataset
from harness.training.data.changes import image_changes
from harness.training.fit import check_fit, check_parts
from harness.training.ranks import ALONE, Ranks
from harness.training.state import Training
from harness.training.trainer import Diverged, Trainer
from methods.method import Teachers

Config = dict[str, Any]


class Learner:
    """A run's student on data that lie on a device, as one of `count` ranks.

    Raises ConfigError for what cannot be trained, before teachers are.
    """

    def __init__(self, config: Config, data: Dataset, device: torch.device, count: int = 1):
        self.config, self.data, self.device = config, data, device
        self.method = build_method(config)
        self.teachers: Teachers | None = None  # until it learns from them
        recipe = config["train"]
        check_fit(recipe, data)
        check_fit({**recipe, **config["teachers"]["train"]}, data)
        validate_shares(config, count)
        if count > 1 and not self.method.divisible:
            name = config["method"]["name"]
            raise ConfigError(f"method={name} cannot share a batch among {count} devices: give it one")
        stream = streams.generator(config["seed"], "init")
        try:
            network = build_network(config, data, stream)
            check_parts(recipe, network)
            self.network = network.to(device)
            student = self.student()
            if count > 1:
                check_shared(student, data.train.images[:2], count)
        except ValueError as error:
            raise ConfigError(f"model={config['model']}: {error}") from error

    def student(self) -> nn.Module:
        members = max(1, self.config["teachers"]["size"])
        return self.method.student(self.network, members, streams.generator(self.config["seed"], "factors"))

    def learn_from(self, bank: Bank, console: Console, stop: Stop, rank: int = 0) -> None:
        """Get its teachers. Raises Interrupted."""
        self.teachers = bank.teachers(self.method, console, stop, rank)

    def begin(
        self,
        group: Ranks = ALONE,
        report: Callable[[dict[str, Any]], None] = lambda epoch: None,
        save: Callable[[Training], None] = lambda training: None,
        stop: Stop = lambda: False,
    ) -> tuple[Trainer, Training]:
        """Who trains, and a training at its first step."""
        config = self.config
        trainer = Trainer(
            method=self.method,
            data=self.data,
            teachers=self.teachers,
            recipe=config["train"],
            padding=config["data"]["padding"],
            flip=config["data"]["flip"],
            seed=config["seed"],
            changes=image_changes(config["data"], self.data),
            report=report,
            save=save,
            stop=stop,
            ranks=group,
        )
        try:
            return trainer, trainer.start(self.network)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def train(self, trainer: Trainer, training: Training) -> dict[str, Any]:
        """Train to the end of the recipe; what torch.compile and CUDA graphs made of it."""
        trainer.run(training)
        found = {"compiled": compilation.describe(self.config["train"]["compile"]), "captured": None}
        if trainer.capture:
            found["captured"], trainer.capture = trainer.capture.describe(), None
            torch.cuda.empty_cache()  # what the graphs kept is the evaluation's
        return found

    def answer(self, trainer: Trainer, training: Training) -> tuple[nn.Module, Arrays]:
        """The deployed network of the chosen checkpoint, and its logits on both splits. Raises Diverged."""
        training.student.load_state_dict(training.best.student)
        network = trainer.deploy(separate(training.student))
        logits = predict_splits(network, self.data, trainer.ranks)
        if not all(np.isfinite(values).all() for values in logits.values()):
            raise Diverged(f"the deployed network of epoch {training.best.epoch} gives answers that are no numbers")
        return network, logits

    def examine(
        self, evaluation: Evaluation, trainer: Trainer, training: Training, network: nn.Module, bank: Bank
    ) -> dict[str, Any]:
        """What else is asked of the student, by its names in the record."""
        found = {"diagnostics": evaluation.diagnose(training.student, network, bank, trainer.ranks)}
        return found | evaluation.try_elsewhere(network, bank, trainer.ranks)


def check_shared(student: nn.Module, images: Tensor, count: int) -> None:
    """Raise ValueError, naming what of a student so many devices cannot share. images [B, C, H, W]: any."""
    separate(synchronise(student))
    if drawing := ranks.find_drawing(student, images):
        raise ValueError(f"its layer {drawing[0]} draws random numbers, on {count} devices others than on one")
    if unused := ranks.find_unused(student, images):
        raise ValueError(f"its parameter {unused[0]} takes no part in its answers: {count} devices would wait for it")
