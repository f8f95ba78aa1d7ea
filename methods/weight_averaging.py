"""One-to-one distillation into subnetworks whose weights are averaged for inference (Nam et al. 2022, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from methods.kd import KD
from methods.latent_be import DECAYS, INITIALISATIONS, MERGES, convert
from methods.losses import soften
from methods.method import check


@dataclass
class WeightAveraging(KD):
    """Member m of a LatentBE student matches teacher m; the members' mean is deployed."""

    citation: ClassVar[str] = (
        "Nam, Lee, Heo, Lee. Improving Ensemble Distillation With Weight Averaging and Diversifying Perturbation. "
        "ICML, 2022."
    )
    capturable: ClassVar[bool] = True
    teachers: ClassVar[int | None] = None
    factors: str = "ones"  # how r and s begin: ones, normal (mean 1), sign (+1 or -1)
    factors_sd: float = 0.5  # of the normal initialisation
    decay: str = "one"  # what weight decay pulls r and s to: one, or none (no decay)
    merge: str = "factors"  # deploy W * mean(s) mean(r)^T, or the mean of the outer products: factors, outer

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.factors in INITIALISATIONS, f"method.factors is one of {INITIALISATIONS}, not {self.factors!r}")
        check(self.factors_sd >= 0, f"method.factors_sd must not be negative, not {self.factors_sd}")
        check(self.decay in DECAYS, f"method.decay is one of {DECAYS}, not {self.decay!r}")
        check(self.merge in MERGES, f"method.merge is one of {MERGES}, not {self.merge!r}")

    def minimum_teachers(self):
        return 2

    def passes(self, members):
        return 3 * members + members

    def student(self, network, members, generator):
        return convert(network, members, self.factors, self.factors_sd, generator)

    def target(self, images, teachers):
        return soften(teachers(images), self.temperature)  # [M, B, K]: one target for each member

    def deploy(self, student):
        return student.merge(self.merge)

    def parameter_groups(self, student, weight_decay):
        return student.parameter_groups(weight_decay, self.decay)
