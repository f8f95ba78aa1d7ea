"""What is found out about a trained student: metrics, diagnostics, and how it fares on shifted and unknown images."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from harness import diagnostics, metrics, ood, shift, streams
from harness.bank import Bank
from harness.config import DATA, bank_folder
from harness.data import Dataset, load
from harness.predictions import Arrays
from harness.progress import Console
from harness.remembered import Findings
from methods.method import Teachers

Metrics = dict[str, dict[str, float]]  # by split


class Evaluation:
    """What a run is asked, as `wanted` (its `evaluate` options, or those not answered yet) says.

    Made before anything is trained: raises ConfigError where images for it are missing.
    """

    def __init__(self, config: dict[str, Any], wanted: dict[str, Any], data: Dataset, console: Console):
        self.config, self.data = config, data
        asked = wanted["diagnostics"]
        self.diagnostics = config["data"]["name"] == "digits" if asked is None else asked
        self.shift = shift.Shift(config["data"], data.test) if wanted["shift"] else None
        where = {"root": config["data"]["root"], "download": config["data"]["download"]}
        self.others = {name: load({**asdict(DATA[name]), **where}, console) for name in wanted["ood"] or ()}

    def diagnose(
        self, student: nn.Module, network: nn.Module, bank: Bank, nll_ts: float, labels: Arrays
    ) -> dict[str, Any] | None:
        """The record's `diagnostics`; the whole teacher set takes part, however many the method learned from."""
        if not self.diagnostics:
            return None
        teachers = Teachers(bank.networks())
        stream = streams.generator(self.config["seed"], "perturbation", -1)  # no training step has this number
        found = diagnostics.diagnose(student, network, teachers, self.data, stream)
        found |= {"dee": None, "dee_cap": len(teachers)}
        if len(teachers) and bank.model == self.config["model"]:
            ladder = diagnostics.ensemble_ladder(bank.logits(), labels)
            found["dee"] = diagnostics.deep_ensemble_equivalent(nll_ts, ladder)
        return found

    def try_elsewhere(self, network: nn.Module, bank: Bank) -> dict[str, Any]:
        """The record's `shift` and `ood`, None where that is not asked."""
        found: dict[str, Any] = {"shift": None, "ood": None}
        if self.shift or self.others:
            teachers = Teachers(bank.networks())
            remember = Findings(bank_folder(self.config) / "found", bank.directories, bank.fingerprint)
            if self.shift:
                found["shift"] = shift.evaluate(self.shift, network, teachers, remember)
            if self.others:
                found["ood"] = ood.evaluate(self.others, self.data, network, teachers, remember)
        return found


def judge_all(logits: Arrays, labels: Arrays, teacher_logits: dict[str, np.ndarray]) -> dict[str, Metrics]:
    """The record's `metrics`: of the student and, where it has teachers ([M, N, K]), of teacher 0 and of all."""
    found = {"student": judge(logits, labels)}
    if teacher_logits:
        found["teacher"] = judge({name: values[0] for name, values in teacher_logits.items()}, labels)
        found["ensemble"] = judge({name: metrics.average(values) for name, values in teacher_logits.items()}, labels)
    return found


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
