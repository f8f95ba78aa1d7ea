"""The training loop: the same for teachers and students, whatever the method.

A run is a function of (network, data, method, teachers, recipe, seed): every random draw comes from a named stream at
(seed, purpose, epoch or step). So a checkpoint holds weights, momentum and the step, and a run that was interrupted
goes on to the same weights as one that was not: bit for bit on a CPU, on a GPU as far as its kernels repeat themselves.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness import streams
from harness.runtime.interruption import Interrupted, Stop
from harness.training import arithmetic, compilation, optimisation
from harness.training.batch_norm import separate
from harness.training.capture import Capture, is_capturable
from harness.training.data import Dataset, train_batches
from harness.training.data.batches import Batch, Views
from harness.training.data.changes import Change, ChangedBatches
from harness.training.data.mixup import MixUp
from harness.training.fit import check_fit
from harness.training.inference import predict, reestimate_batch_norm
from harness.training.meter import Meter
from harness.training.optimisation import RunningMean
from harness.training.ranks import ALONE, Ranks
from harness.training.state import Best, Training
from methods.method import Method, Teachers


class Diverged(RuntimeError):
    """The loss stopped being a number."""


@dataclass
class Trainer:
    """One training on one device.

    recipe: the `train` configuration. changes: of images, beyond crops and mirror images. `report` is called with each
    epoch's summary (a dict), `save` with the Training whenever it is worth keeping, `stop` is asked between steps
    whether to end here; ranks: the processes that share its batches.
    """

    method: Method
    data: Dataset
    teachers: Teachers
    recipe: dict[str, Any]
    padding: int
    flip: bool
    seed: int | str
    changes: Sequence[Change] = ()
    report: Callable[[dict[str, Any]], None] = lambda summary: None
    save: Callable[[Training], None] = lambda training: None
    stop: Stop = lambda: False
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        self.epochs = self.method.epochs(self.recipe["epochs"], len(self.teachers))
        self.average = self.recipe["average"] if self.method.trained else "none"  # over steps or epochs that there are
        check_fit(self.recipe, self.data)
        size, steps = self.recipe["batch_size"], self.recipe["steps_per_epoch"]
        parts = self.recipe["accumulate"]
        own, whole = partial(self.ranks.own, parts=parts), partial(self.ranks.whole, parts=parts)
        self.batches = train_batches(self.data.train, self.padding, self.flip, self.seed, size, steps, own)
        mixup = [MixUp(self.recipe["mixup"], self.data.classes, whole)] if self.recipe["mixup"] else []
        if changes := [*self.changes, *mixup]:
            self.batches = ChangedBatches(self.batches, changes, self.seed, own)
        self.steps_per_epoch = self.batches.steps
        self.device = self.data.train.images.device
        wanted, on_gpu = self.recipe["channels_last"], self.device.type == "cuda"
        chosen = on_gpu if wanted is None else wanted
        self.memory_format = torch.channels_last if chosen else torch.contiguous_format
        self.meter = Meter(self.device)
        # torch.compile captures graphs of its own, where its mode says so.
        possible = on_gpu and self.recipe["compile"] is None and self.teachers.capturable and is_capturable(self.method)
        possible = possible and self.ranks.count == 1  # what ranks say to each other is not captured
        self.capture = Capture(self.device) if possible and self.recipe["capture"] else None
        self.kinds: set[tuple] = set()  # of steps that were taken
        compilation.begin(self.recipe["compile"])
        for network in self.teachers.networks:
            network.to(memory_format=self.memory_format)
            if self.recipe["precision"] == "bfloat16":
                arithmetic.keep_in(torch.bfloat16, network)
            compilation.compile_network(network, self.recipe["compile"])

    def start(self, network: nn.Module) -> Training:
        """A training at step 0 from a freshly initialised plain network on the data's device.

        Raises ValueError where the student cannot begin with these teachers.
        """
        members = len(self.teachers)
        network = self.ranks.synchronise(network.to(memory_format=self.memory_format))
        student = self.method.student(network, members, streams.generator(self.seed, "factors"))
        self.method.adopt(student, self.teachers)
        groups = self.method.parameter_groups(student, self.recipe["weight_decay"])
        optimiser = optimisation.build_optimiser(
            groups, self.recipe["optimiser"], self.recipe["momentum"], self.recipe["nesterov"], self.device
        )
        torch.manual_seed(streams.derive(self.seed, "layers"))  # for networks whose layers draw, such as dropout
        average = RunningMean(student) if self.average == "ema" else None
        compilation.compile_network(student, self.recipe["compile"])
        return Training(student, optimiser, average=average, replica=self.ranks.replicate(student))

    def run(self, training: Training) -> Training:
        """Train to the end of the recipe. Raises Diverged, or Interrupted where `stop` said so."""
        if not self.method.trained:
            self.validate(training, 0)
            return training
        training.student.train()
        while training.step < self.epochs * self.steps_per_epoch:
            epoch = training.step // self.steps_per_epoch
            with arithmetic.of_steps(self.recipe["precision"]):
                summary = self.run_epoch(training, epoch)
            self.average_epoch(training, epoch)
            if self.validates(epoch + 1):
                summary["validation"] = self.validate(training, epoch + 1)
            self.report(summary)
            if (epoch + 1) % self.recipe["checkpoint_every"] == 0 or epoch + 1 == self.epochs:
                self.save(training)
        return training

    def run_epoch(self, training: Training, epoch: int) -> dict[str, Any]:
        """The steps of one epoch from `training.step` on; nothing in here waits for the device."""
        start, before = time.perf_counter(), training.seconds
        self.meter.begin(training.step)
        totals = training.totals
        for batch in self.batches.epoch(epoch, training.step % self.steps_per_epoch):
            if self.ranks.any(self.stop()):
                training.seconds += time.perf_counter() - start
                # What goes on from here, on however many devices, has the whole batches' sums.
                training.totals = {name: self.ranks.mean(total) for name, total in totals.items()}
                self.save(training)
                raise Interrupted(f"stopped at step {training.step} of {self.epochs * self.steps_per_epoch}")
            parts = self.take_step(training, batch)
            for name, value in parts.items():
                totals[name] = totals[name] + value if name in totals else value
            self.meter.after(training.step, training.step % self.steps_per_epoch == 0)
        # The epoch's one look at the device.
        sums = self.ranks.mean(torch.stack(list(totals.values()))).tolist()
        means = {name: value / self.steps_per_epoch for name, value in zip(totals, sums, strict=True)}
        training.totals = {}
        training.rates.append(self.meter.steps_per_s(training.step) * self.recipe["batch_size"])
        training.peak_bytes = max(training.peak_bytes, self.meter.peak_bytes())
        elapsed = time.perf_counter() - start
        training.seconds = before + elapsed
        if not math.isfinite(means["loss"]):
            raise Diverged(f"the loss became {means['loss']} by step {training.step}, in epoch {epoch + 1}")
        return {
            "epoch": epoch + 1,
            "step": training.step,
            **means,
            "lr": self.rate(training.step - 1),
            "images_per_s": training.rates[-1],
            "elapsed_s": training.seconds,
        }

    def rate(self, step: int) -> float:
        warmup = self.recipe["warmup_epochs"] * self.steps_per_epoch
        peak, meant_for = self.recipe["lr"], self.recipe["lr_batch_size"]
        if meant_for is not None:
            peak = peak * self.recipe["batch_size"] / meant_for
        total = self.epochs * self.steps_per_epoch
        return optimisation.learning_rate(step, peak, warmup, total, self.recipe["schedule"])

    def take_step(self, training: Training, batch: Batch) -> dict[str, Tensor]:
        """One update; returns the loss and its parts, on the device."""
        optimisation.set_learning_rate(training.optimiser, self.rate(training.step))
        self.method.progress = training.step / (self.epochs * self.steps_per_epoch)
        if self.capture is None:
            draws = self.draws(training.step)
            means = self.update(training, draws, batch.images, batch.labels, batch.views)
            if self.ranks.count > 1 and not self.kinds:
                self.kinds.add(())
                self.check_draws(draws, training.step, "ranks would each draw their own for other images")
        else:
            means = self.replay(self.capture, training, batch)
        if self.average == "ema":
            # Early on the mean runs over the steps that there are, not over the initial weights.
            decay = min(self.recipe["ema_decay"], (1 + training.step) / (10 + training.step))
            training.average.add(1 - decay)
        training.step += 1
        return means

    def replay(self, capture: Capture, training: Training, batch: Batch) -> dict[str, Tensor]:
        """An update whose work on the device may be captured: it depends on its inputs and on the method's choice."""
        used = self.draws(training.step)
        kind = self.kind(self.draws(training.step))

        def work(images: Tensor, labels: Tensor, views: Tensor | None) -> dict[str, Tensor]:
            # Nothing may be looked up on the host in here, where it would be looked up once.
            return self.update(training, used, images, labels, None if views is None else Views(views, None))

        means = capture(kind, work, (batch.images, batch.labels, batch.views and batch.views.on_device))
        if kind not in self.kinds:
            self.kinds.add(kind)
            why = "its steps cannot be captured, so it must not say `capturable = True`"
            self.check_draws(used, training.step, why)
        return means

    def kind(self, draws: list[torch.Generator]) -> tuple:
        """What the method chooses to do in a step, for every part of its batch."""
        return tuple(self.method.choice(len(self.teachers), generator) for generator in draws)

    def check_draws(self, used: list[torch.Generator], step: int, why: str) -> None:
        """Raise TypeError where the step drew other numbers than it chooses by."""
        self.kind(expected := self.draws(step))
        if any(not torch.equal(a.get_state(), b.get_state()) for a, b in zip(expected, used, strict=True)):
            raise TypeError(f"{type(self.method).__name__}.inputs draws other numbers than its `choice`: {why}")

    def draws(self, step: int) -> list[torch.Generator]:
        """What the method draws from in a step, for every part of its batch."""
        parts = range(self.recipe["accumulate"])
        return [streams.generator(self.seed, "perturbation", step, *([k] if k else [])) for k in parts]

    def update(
        self,
        training: Training,
        draws: list[torch.Generator],
        images: Tensor,
        labels: Tensor,
        views: Views | None,
    ) -> dict[str, Tensor]:
        """A step's work on the device: the gradients of a batch, and the optimiser's step; returns the loss and its
        parts.
        """
        training.optimiser.zero_grad(set_to_none=True)  # what a step that failed may have left
        self.mark()
        if self.recipe["label_smoothing"]:
            labels = self.smooth(labels)
        count = len(draws)
        means: dict[str, Tensor] = {}
        chunks = [None] * count if views is None else views.chunk(count)
        images = images.contiguous(memory_format=self.memory_format)
        for k, rows in enumerate(zip(images.chunk(count), labels.chunk(count), chunks, draws, strict=True)):
            with self.ranks.apart(training.replica) if k + 1 < count else contextlib.nullcontext():
                parts = self.backward(training, *rows)
            for name, value in parts.items():
                means[name] = value if k == 0 else means[name] + value
        training.optimiser.step()
        training.optimiser.zero_grad(set_to_none=True)
        return means

    def backward(
        self, training: Training, images: Tensor, labels: Tensor, views: Views | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Add the gradients of a part of a batch; returns its share of the batch's mean loss and of its parts."""
        student, count = training.student, self.recipe["accumulate"]
        self.teachers.expect(images, views)
        with self.autocast():
            images, labels = self.method.inputs(images, labels, self.teachers, student, generator)
            if count == 1:
                # What looked at the inputs is done with. CUDA graphs otherwise record a student's step once for every
                # pair of teachers that may have come before it.
                self.mark()
            parts = self.method.loss(images, labels, self.teachers, training.learns)
        if count > 1:
            parts = {name: value / count for name, value in parts.items()}
        parts["loss"].backward()
        # Nothing of a step's graph may outlive the step: no capture could follow it.
        return {name: value.detach() for name, value in parts.items()}

    def mark(self) -> None:
        """Tell CUDA graphs that what networks gave out so far, gradients aside, is not read any more."""
        if self.recipe["compile"]:
            torch.compiler.cudagraph_mark_step_begin()

    def smooth(self, labels: Tensor) -> Tensor:
        """Labels [B] or [B, K] as distributions [B, K], a share of each spread evenly over all classes."""
        share, classes = self.recipe["label_smoothing"], self.data.classes
        soft = labels if labels.is_floating_point() else nn.functional.one_hot(labels, classes).float()
        return soft * (1 - share) + share / classes

    def average_epoch(self, training: Training, epoch: int) -> None:
        """SWA: the plain mean of the student after every epoch from `swa_start` on (epochs count from 0 here)."""
        past = epoch - math.floor(self.recipe["swa_start"] * self.epochs)
        if self.average != "swa" or past < 0:
            return
        if training.average is None:
            training.average = RunningMean(training.student)
        else:
            training.average.add(1 / (past + 1))

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.recipe["precision"] == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def validates(self, epoch: int) -> bool:
        """After epoch 1, every tenth of the epochs, and every epoch of the last tenth (epochs count from 1)."""
        tenth = max(1, self.epochs // 10)
        return epoch == 1 or epoch % tenth == 0 or epoch > self.epochs - tenth

    def validate(self, training: Training, epoch: int) -> dict[str, float]:
        """Accuracy and NLL of the network as it would be deployed; keeps the student where it is the best so far."""
        logits = predict(self.deploy(training.judged), self.data.validation, ranks=self.ranks)
        if not torch.isfinite(logits).all():
            raise Diverged(f"the network's answers became no numbers by step {training.step}, in epoch {epoch}")
        labels = self.data.validation.labels
        found = {
            "acc": float((logits.argmax(1) == labels).double().mean()),
            "nll": float(nn.functional.cross_entropy(logits.double(), labels)),
        }
        # Of SWA only averages compete: the student before them is what the recipe means to improve on.
        averaged = self.average != "swa" or training.average is not None
        if averaged and found["acc"] > training.best.acc:
            training.best = Best(epoch, found["acc"], copy.deepcopy(training.judged.state_dict()))
        return found

    def deploy(self, student: nn.Module) -> nn.Module:
        """The method's plain network in evaluation mode, batch norm re-estimated where the method asks for it."""
        network = separate(self.method.deploy(student).requires_grad_(False))
        if self.method.reestimate_bn or self.average == "swa":  # statistics are not linear in the weights
            reestimate_batch_norm(network, self.data.train, ranks=self.ranks)
        return network.eval()
