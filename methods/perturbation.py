"""Ensemble distillation on inputs moved to where the teachers disagree (Nam et al. 2022, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from methods.diversify import ascend, disagreement, draw_pair
from methods.ensemble_kd import EnsembleKD
from methods.method import check


@dataclass
class Perturbed:
    """The inputs of TDiv and TDiv-SDiv; a mix-in before a Method, so that any variant can be shown them."""

    step: float = 1.0  # root-mean-square size of the step, in grey levels (1/255)
    student_term: bool = False  # TDiv-SDiv: leave out what the student's members already disagree on
    pair: list[int] | None = None  # the ordered pair of members, or None: drawn anew for every batch
    keep_clean: bool = False  # show the clean images beside the perturbed ones

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        check(self.step >= 0, f"method.step must not be negative, not {self.step}")
        fits = self.pair is None or (len(self.pair) == 2 and self.pair[0] != self.pair[1] and min(self.pair) >= 0)
        check(fits, f"method.pair is two different members, such as [0,1], not {self.pair}")

    def minimum_teachers(self):
        return 1 + max(self.pair or (0, 1))

    def passes(self, members):
        # Of the teachers, and with SDiv of the student's members: one forwards, one forwards and back to its input.
        pairs = 2 if self.student_term else 1
        return (2 if self.keep_clean else 1) * super().passes(members) + 3 * pairs

    def choice(self, members, generator):
        """The ordered pair of this step."""
        return tuple(self.pair) if self.pair else draw_pair(members, generator)

    def known_answers(self, members):
        return 1  # of the pair's second member, on the clean images; the targets are of perturbed ones

    def inputs(self, images, labels, teachers, student, generator):
        # The pair comes first: only its two members run, only one of them backwards.
        i, j = self.choice(len(teachers), generator)
        check(max(i, j) < len(teachers), f"method.pair={[i, j]} names a member that {len(teachers)} teachers lack")

        def teacher(m):
            # Of j only the answer to the clean images counts, which may be known without asking.
            return teachers.member(i) if m == i else lambda _: teachers.answer(j, images)

        student_member = student.member if self.student_term else None
        perturbed = ascend(images, disagreement(i, j, teacher, student_member), self.step)
        if self.keep_clean:
            return torch.cat([images, perturbed]), torch.cat([labels, labels])
        return perturbed, labels


@dataclass
class Perturbation(Perturbed, EnsembleKD):
    """A plain student matches the averaged teachers on TDiv inputs."""

    citation: ClassVar[str] = (
        "Nam, Lee, Heo, Lee. Improving Ensemble Distillation With Weight Averaging and Diversifying Perturbation. "
        "ICML, 2022."
    )
    capturable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not self.student_term, "method.student_term=true needs a student with members: use method=combined")
