"""A soup of students: averaged without ever having shared a weight (Wortsman et al. 2022).

The control for the claim that members may be averaged because they share most of their weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch

from methods.ensemble import Members
from methods.kd import KD
from methods.losses import soften


@dataclass
class Soup(KD):
    """M whole students from one initialisation, student m matches teacher m; the mean of their weights is deployed.

    The loss is the sum of theirs, so that each is trained as if it were alone.
    """

    citation: ClassVar[str] = (
        "Wortsman et al. Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy Without "
        "Increasing Inference Time. ICML, 2022."
    )
    capturable: ClassVar[bool] = True
    teachers: ClassVar[int | None] = None
    reestimate_bn: bool = True

    def passes(self, members):
        return 3 * members + members

    def student(self, network, members, generator):
        return Members(copy.deepcopy(network) for _ in range(members))

    def target(self, images, teachers):
        return soften(teachers(images), self.temperature)  # [M, B, K]: one target for each student

    def loss(self, images, labels, teachers, student):
        parts = super().loss(images, labels, teachers, student)
        return {**parts, "loss": len(teachers) * parts["loss"]}

    def deploy(self, student):
        network, *others = (network.state_dict() for network in student.networks)
        deployed = copy.deepcopy(student.networks[0])
        deployed.load_state_dict(
            {
                name: torch.stack([values, *(other[name] for other in others)]).mean(0)
                if values.is_floating_point()
                else values
                for name, values in network.items()
            }
        )
        return deployed
