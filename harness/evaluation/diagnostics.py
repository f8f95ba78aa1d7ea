"""Why a student is as good as it is: diversity, fidelity, loss barriers, its worth in ensemble members.

In a run's record, under `diagnostics`, where `evaluate.diagnostics=true`:

    teachers   {train, test, perturbed: {pairwise_kl, disagreement, ambiguity}}, or None with fewer than two
    members    the same of the student's members before they are merged, or None for a student without
    fidelity   {agreement, kl} of the deployed network with the teachers' ensemble on test inputs, or None
    barriers   {"0-1": {t, loss, loss_bn, barrier, barrier_bn}, ...} between members i and j, or None
    dee        deep-ensemble equivalent of its nll_ts, or None without teachers of the student's network
    dee_cap    the largest ensemble that was measured

Inputs are the first IMAGES of a split. Perturbed ones are train inputs after one TDiv step, with a pair of
teachers drawn for every PAIRED of them; given seed and teachers they are the same for every method.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.evaluation import metrics
from harness.training.data import Dataset, Split
from harness.training.data.augmentation import to_unit
from harness.training.inference import batch_for, reestimate_batch_norm
from harness.training.ranks import ALONE, Ranks
from methods.diversify import ascend, disagreement, draw_pair
from methods.latent_be import LatentBE
from methods.method import Teachers

IMAGES = 2000
PAIRED = 500  # whatever the device and its batches: the pairs are the same on all
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)  # on the line between two members

Network = Callable[[Tensor], Tensor]


def diagnose(
    student: nn.Module,
    deployed: nn.Module,
    teachers: Teachers,
    data: Dataset,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Everything but `dee`, of the trained student, its deployed network and the whole teacher set. Of several ranks, which
    must all ask, each asks some of the networks about some of the images.
    """
    train, test = first(data.train), first(data.test)
    inputs = {"train": to_unit(train.images), "test": to_unit(test.images)}
    labels = {"train": train.labels, "test": test.labels, "perturbed": train.labels}
    if len(teachers) > 1:
        inputs["perturbed"] = perturb(inputs["train"], teachers, generator)
    members = list_members(student)
    return {
        "teachers": diversity(teachers.networks, inputs, labels, ranks) if len(teachers) > 1 else None,
        "members": diversity(members, inputs, labels, ranks) if members else None,
        "fidelity": fidelity(deployed, teachers, inputs["test"], ranks) if len(teachers) else None,
        "barriers": barriers(student, train, test, ranks) if members else None,
    }


def first(split: Split) -> Split:
    return Split(split.images[:IMAGES], split.labels[:IMAGES])


def list_members(student: nn.Module) -> list[Network]:
    """A student's members in evaluation mode; none where it is plain."""
    return [student.member(m) for m in range(student.members)] if isinstance(student, LatentBE) else []


def perturb(images: Tensor, teachers: Teachers, generator: torch.Generator) -> Tensor:
    """Images [N, C, H, W] moved to where two teachers disagree: the same two for every PAIRED images."""
    moved = []
    for batch in images.split(PAIRED):
        i, j = draw_pair(len(teachers), generator)
        objective = disagreement(i, j, teachers.member)
        moved += [ascend(part, objective, 1.0) for part in batch.split(batch_for(images))]
    return torch.cat(moved)


@torch.no_grad()
def logits_of(networks: Sequence[Network], images: Tensor, ranks: Ranks = ALONE) -> NDArray[np.float64]:
    """[M, N, K] of images [N, C, H, W] in [0, 1]."""
    pairs = list(itertools.product(networks, images.split(batch_for(images))))
    found = ranks.each(lambda pair: pair[0](pair[1]).double().cpu().numpy(), pairs)
    return np.concatenate(found).reshape(len(networks), len(images), -1)


def diversity(
    networks: Sequence[Network], inputs: dict[str, Tensor], labels: dict[str, Tensor], ranks: Ranks
) -> dict[str, dict[str, float]]:
    """How much networks differ, by kind of input."""
    found = {}
    for kind, images in inputs.items():
        logits = logits_of(networks, images, ranks)
        found[kind] = {
            "pairwise_kl": metrics.pairwise_kl(logits),
            "disagreement": 1 - metrics.pairwise_agreement(logits),
            "ambiguity": metrics.ambiguity(logits, labels[kind].cpu()),
        }
    return found


def fidelity(deployed: Network, teachers: Teachers, images: Tensor, ranks: Ranks) -> dict[str, float]:
    """Agreement of the top classes, and KL(ensemble || student)."""
    ensemble = metrics.average(logits_of(teachers.networks, images, ranks))
    (student,) = logits_of([deployed], images, ranks)
    return {
        "agreement": metrics.pairwise_agreement([ensemble, student]),
        "kl": metrics.kl(ensemble, student),
    }


# Loss barriers -----------------------------------------------------------------------------------------


def barriers(student: LatentBE, train: Split, test: Split, ranks: Ranks) -> dict[str, dict[str, Any]]:
    """Test loss on the line between each two members' weights, and the largest rise above the line of losses.

    `_bn`: with batch-norm statistics re-estimated on train inputs at every point, not the shared ones.
    """
    members = [student.extract(m).requires_grad_(False).eval() for m in range(student.members)]
    states = [copy.deepcopy(member.state_dict()) for member in members]
    network = members[0]  # every point is measured in this one

    def losses_at(point: tuple[int, int, float]) -> tuple[float, float]:
        i, j, t = point
        network.load_state_dict(interpolate(states[i], states[j], t))
        return losses(network, train, test)

    lines = list(itertools.combinations(range(len(states)), 2))
    points = [(m, m, 0.0) for m in range(len(states))] + [(i, j, t) for i, j in lines for t in POSITIONS[1:-1]]
    at = dict(zip(points, ranks.each(losses_at, points), strict=True))
    found = {}
    for i, j in lines:
        path = [at[i, i, 0.0], *(at[i, j, t] for t in POSITIONS[1:-1]), at[j, j, 0.0]]
        loss, loss_bn = (list(values) for values in zip(*path, strict=True))
        found[f"{i}-{j}"] = {
            **{"t": list(POSITIONS), "loss": loss, "loss_bn": loss_bn},
            **{"barrier": barrier(loss), "barrier_bn": barrier(loss_bn)},
        }
    return found


def barrier(path: Sequence[float]) -> float:
    """max over t of L((1 - t) w_i + t w_j) - [(1 - t) L_i + t L_j], for losses at POSITIONS; at least 0."""
    return max(loss - ((1 - t) * path[0] + t * path[-1]) for t, loss in zip(POSITIONS, path, strict=True))


def interpolate(start: dict[str, Tensor], end: dict[str, Tensor], t: float) -> dict[str, Tensor]:
    """(1 - t) start + t end of two states; whole numbers are those of `start`."""
    return {name: tensor.lerp(end[name], t) if tensor.is_floating_point() else tensor for name, tensor in start.items()}


def losses(network: nn.Module, train: Split, test: Split) -> tuple[float, float]:
    """Test loss of a network as it is, then with its batch-norm statistics re-estimated, in place."""
    images, labels = to_unit(test.images), test.labels.cpu()
    (before,) = logits_of([network], images)
    reestimate_batch_norm(network, train)
    (after,) = logits_of([network], images)
    return metrics.nll_of_logits(before, labels), metrics.nll_of_logits(after, labels)


# Deep ensembles ----------------------------------------------------------------------------------------


def ensemble_ladder(logits: dict[str, NDArray], labels: dict[str, NDArray]) -> list[float]:
    """nll_ts of ensembles of 1, 2, ... M members, each size a mean over M sets of neighbours in a ring.

    logits [M, N, K] and labels [N] by split: temperatures are fitted on `validation`, the NLL is of `test`.
    """
    count = len(logits["test"])
    ladder = []
    for size in range(1, count + 1):
        found = []
        for start in range(count if size < count else 1):
            chosen = [(start + k) % count for k in range(size)]
            validation, test = (metrics.average(logits[name][chosen]) for name in ("validation", "test"))
            temperature = metrics.fit_temperature(validation, labels["validation"])
            found.append(metrics.evaluate(test, labels["test"], temperature)["nll_ts"])
        ladder.append(float(np.mean(found)))
    return ladder


def deep_ensemble_equivalent(nll_ts: float, ladder: Sequence[float]) -> float:
    """The real-valued ensemble size of this nll_ts, linear between sizes, from 1 to len(ladder)."""
    if nll_ts >= ladder[0]:
        return 1.0
    for size, (above, below) in enumerate(itertools.pairwise(ladder), 1):
        if below <= nll_ts:
            return size + (above - nll_ts) / (above - below)
    return float(len(ladder))
