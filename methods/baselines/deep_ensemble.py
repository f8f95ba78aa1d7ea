"""The teachers themselves, as an ensemble: the bar that one-pass students are held against (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.baselines.unmerged import Unmerged
from methods.method import Method


@dataclass
class DeepEnsemble(Unmerged, Method):
    """All teachers of the set, their softmaxes averaged; nothing is trained."""

    citation: ClassVar[str] = (
        "Lakshminarayanan, Pritzel, Blundell. Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles. "
        "NIPS, 2017."
    )
    trained: ClassVar[bool] = False

    def passes(self, members):
        return 0

    def known_answers(self, members):
        return 0

    def student(self, network, members, generator):
        return self.form(network, members)

    def adopt(self, student, teachers):
        for own, teacher in zip(student.members.networks, teachers.networks, strict=True):
            try:
                own.load_state_dict(teacher.state_dict())
            except RuntimeError as error:
                raise ValueError("deep_ensemble is one of the student's network: it takes no teachers.model") from error
