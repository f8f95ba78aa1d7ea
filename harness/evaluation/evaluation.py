"""What is found out about a trained student: metrics, diagnostics, and how it fares on shifted and unknown images."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from harness import streams
from harness.config.brought import data_options
from harness.evaluation import diagnostics, metrics, ood, shift
from harness.runtime.console import Console
from harness.store.findings import Findings
from harness.store.identity import bank_folder
from harness.store.predictions import Arrays
from harness.training.data import Dataset, load
from harness.training.ranks import ALONE, Ranks
from methods.method import Teachers

Metrics = dict[str, dict[str, float]]  # by split


class TeacherSet(Protocol):
    """The finished teachers of a run, in member order; none where its method learns from none."""

    names: list[str]

    def like_student(self) -> bool:
        """Whether all of them have the student's network."""

    def networks(self) -> list[nn.Module]:
        """All of them, in evaluation mode."""

    def logits(self) -> dict[str, np.ndarray]:
        """What they recorded, by split: [M, N, K]; empty where there are none."""

    def findings(self) -> Findings:
        """What is known of them."""


class Evaluation:
    """What a run is asked, as `wanted` (its `evaluate` options, or those not answered yet) says.

    Made before anything is trained: raises ConfigError where images for it are missing.
    """

    def __init__(self, config: dict[str, Any], wanted: dict[str, Any], data: Dataset, console: Console):
        self.config, self.data = config, data
        asked = wanted["diagnostics"]
        self.diagnostics = config["data"]["name"] == "digits" if asked is None else asked
        bank = bank_folder(config)
        self.shift = shift.Shift(config["data"], data.test, bank, console.say) if wanted["shift"] else None
        where = {"root": config["data"]["root"], "download": config["data"]["download"]}
        self.others = {name: load({**asdict(data_options(name)), **where}, console) for name in wanted["ood"] or ()}

    def diagnose(
        self, student: nn.Module, network: nn.Module, teachers: TeacherSet, ranks: Ranks = ALONE
    ) -> dict[str, Any] | None:
        """The record's `diagnostics`, but for `dee`; the whole teacher set takes part, however many the method learned from.
        Ranks must all ask.
        """
        if not self.diagnostics:
            return None
        members = Teachers(teachers.networks())
        stream = streams.generator(self.config["seed"], "perturbation", -1)  # no training step has this number
        found = diagnostics.diagnose(student, network, members, self.data, stream, ranks)
        return found | {"dee": None, "dee_cap": len(members)}

    def worth(self, nll_ts: float, teachers: TeacherSet, labels: Arrays) -> float | None:
        """`dee` of the record's diagnostics."""
        if not teachers.names or not teachers.like_student():
            return None
        ladder = diagnostics.ensemble_ladder(teachers.logits(), labels)
        return diagnostics.deep_ensemble_equivalent(nll_ts, ladder)

    def try_elsewhere(self, network: nn.Module, teachers: TeacherSet, ranks: Ranks = ALONE) -> dict[str, Any]:
        """The record's `shift` and `ood`, None where that is not asked. Ranks must all ask."""
        found: dict[str, Any] = {"shift": None, "ood": None}
        if self.shift or self.others:
            members = Teachers(teachers.networks())
            remember = partial(teachers.findings(), agree=ranks.copy, keeps=ranks.rank == 0)
            if self.shift:
                found["shift"] = shift.evaluate(self.shift, network, members, remember, ranks)
            if self.others:
                found["ood"] = ood.evaluate(self.others, self.data, network, members, remember, ranks)
        return found


def judge_all(
    logits: Arrays, labels: Arrays, teacher_logits: dict[str, np.ndarray]
) -> tuple[dict[str, Metrics], list[str]]:
    """The record's `metrics`: of the student and, where it has teachers ([M, N, K]), of teacher 0 and of all; and its
    `notes`.
    """
    found = {"student": judge(logits, labels)}
    notes = metrics.oddities(logits, labels, found["student"]["test"]["temperature"])
    if teacher_logits:
        found["teacher"] = judge({name: values[0] for name, values in teacher_logits.items()}, labels)
        together = {name: metrics.average(values) for name, values in teacher_logits.items()}
        found["ensemble"] = judge(together, labels)
        odd = metrics.oddities(together, labels, found["ensemble"]["test"]["temperature"])
        notes += [f"teachers' ensemble: {note}" for note in odd if note not in notes]
    return found, notes


def without_infinities(value: Any, name: str = "") -> tuple[Any, list[str]]:
    """A record, or a part of it, with None in the place of numbers that are none, and where these were."""
    if isinstance(value, float) and not math.isfinite(value):
        return None, [name]
    if isinstance(value, dict):
        parts = {key: without_infinities(part, f"{name}.{key}".strip(".")) for key, part in value.items()}
        return {key: part for key, (part, _) in parts.items()}, [place for _, lost in parts.values() for place in lost]
    if isinstance(value, list):
        items = [without_infinities(part, name) for part in value]
        return [part for part, _ in items], list(dict.fromkeys(place for _, lost in items for place in lost))
    return value, []


def judge(logits: Arrays, labels: Arrays) -> Metrics:
    """Metrics on both splits, at the temperature that suits the validation split."""
    temperature = metrics.fit_temperature(logits["validation"], labels["validation"])
    return {name: metrics.evaluate(logits[name], labels[name], temperature) for name in logits}


def count_flops(network: nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations of one image through the network: two for each multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images.float() / 255)
    return counter.get_total_flops()
