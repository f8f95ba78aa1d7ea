"""A test that may be looked at more than once: sign flips whose level is spent look by look.

If two methods do not differ, every difference is symmetric about 0, so of all the studies that differ from this one
in the signs of their differences (its paths) none is likelier than another. At each look the paths with the largest
statistic among those that are left are rejected, as many as the spending function allows by then (Lan and DeMets,
Biometrika 70, 1983); the path that was observed is one of them. So the level holds exactly, over all looks, whatever
the shape of the noise. What a look cannot spend, because paths come in whole numbers or tied, is left to later ones.

A mean must in addition pass the skew-guarded t of `statistics` at the look's nominal level, the share of all paths
beyond its boundary. Ranks (Wilcoxon's) need no finite differences: a run that failed is an infinite one.

Functions are pure. `d[..., n]` are differences in the order of their seeds, leading axes independent problems.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.inference.statistics import Alternative, skew_guarded_t

EXACT_UP_TO = 22  # seeds of the whole study: all paths are walked, beyond a subgroup that is the same at every look
SAMPLED = 2**17
_SLACK = 1e-9  # sums reached in another order may differ by this share and are tied


class Design(NamedTuple):
    """Seeds at each look, in rising order; how the level is spent; what is flipped."""

    looks: tuple[int, ...]
    spending: str = "obrien_fleming"  # or pocock
    statistic: str = "mean"  # or rank

    @property
    def most(self) -> int:
        """Seeds of a study that goes to its end."""
        return self.looks[-1]


class Walk(NamedTuple):
    """Of each level [levels, ..., looks] up to the last look that the data reach."""

    crossed: NDArray  # whether the observed path is among those rejected by then, bool
    nominal: NDArray  # share of all paths beyond the look's boundary
    boundary: NDArray  # what the statistic must exceed: of the mean, of the sum of signed ranks


def spent(level: ArrayLike, share: ArrayLike, spending: str = "obrien_fleming") -> NDArray:
    """The part of the level that may be spent when `share` of the seeds are there (Lan and DeMets)."""
    level, share = np.asarray(level, float), np.asarray(share, float)
    if spending == "obrien_fleming":
        return 2 * stats.norm.sf(stats.norm.isf(level / 2) / np.sqrt(share))
    if spending == "pocock":
        return level * np.log1p((math.e - 1) * share)
    raise ValueError(f"unknown spending {spending!r}: choose obrien_fleming or pocock")


def walk(
    d: ArrayLike, design: Design, levels: ArrayLike, alternative: Alternative = "two-sided", draws: int = 0
) -> Walk:
    """Walk the paths at several levels at once. draws: so many paths instead of all, a power of 2."""
    d = np.asarray(d, float)
    d = -d if alternative == "less" else d
    shape, two_sided = d.shape[:-1], alternative == "two-sided"
    d, levels = d.reshape(-1, d.shape[-1]), np.atleast_1d(np.asarray(levels, float))
    looks = [n for n in design.looks if n <= d.shape[-1]]
    found = np.zeros((3, len(levels), len(d), len(looks)))
    gone = np.zeros((len(levels), len(d), 1), bool)
    for k, n in enumerate(looks):
        values = signed_ranks(d[:, :n]) if design.statistic == "rank" else d[:, :n]
        sums = _sums(values, design.most, two_sided, draws)
        gone = np.tile(gone, sums.shape[-1] // gone.shape[-1])
        slack = _SLACK * np.abs(values).sum(-1, keepdims=True)
        budgets = np.floor(spent(levels, n / design.most, design.spending) * sums.shape[-1] + _SLACK).astype(int)
        # Rejected paths included, no look needs more of the largest than its budget and one.
        top = _largest(sums, min(int(budgets.max()) + 1, sums.shape[-1]))
        high = np.take_along_axis(sums, top, -1)
        for i, budget in enumerate(budgets):
            out = np.take_along_axis(gone[i], top, -1)
            cut = _first_kept(np.where(out, -np.inf, high), budget - gone[i].sum(-1))
            np.put_along_axis(gone[i], top, out | (high > cut + slack), -1)
            found[1, i, :, k] = (high > cut + slack).mean(-1) * high.shape[-1] / sums.shape[-1]
            found[2, i, :, k] = cut[:, 0] / (1 if design.statistic == "rank" else n)
        found[0, :, :, k] = gone[:, :, 0]
    crossed, nominal, boundary = found.reshape(3, len(levels), *shape, len(looks))
    return Walk(crossed.astype(bool), nominal, boundary)


def crossings(
    d: ArrayLike, design: Design, levels: ArrayLike, alternative: Alternative = "two-sided", draws: int = 0
) -> NDArray:
    """Whether the test had found something by each look, at each level [levels, ..., looks]; a mean with its guard."""
    d = np.asarray(d, float)
    crossed, nominal, _ = walk(d, design, levels, alternative, draws)
    if design.statistic == "mean":
        for k, n in enumerate(design.looks[: crossed.shape[-1]]):
            # A p that is none, of differences without spread, speaks against nothing.
            crossed[..., k] &= ~(skew_guarded_t(d[..., :n], alternative) > nominal[..., k])
    return np.logical_or.accumulate(crossed, -1)


def equivalences(d: ArrayLike, margin: float, design: Design, levels: ArrayLike, draws: int = 0) -> NDArray:
    """Whether the difference was shown to lie within +-margin by each look: two one-sided tests, as `crossings`."""
    d = np.asarray(d, float)
    above = crossings(d + margin, design, levels, "greater", draws)
    return above & crossings(margin - d, design, levels, "greater", draws)


def settle(different: NDArray, equivalent: NDArray | None = None) -> tuple[NDArray, NDArray]:
    """Holm by closed testing: how each comparison of a family ends, and at which look.

    different, equivalent: [h, ..., m, looks] at alpha / h for h = 1..m. Returns outcome [..., m] (0 open, 1 different,
    2 equivalent) and look [..., m] (-1 where open).

    A comparison frees its share of alpha for the others when it falls; with equivalence, when both of its hypotheses
    have fallen, of which at most one is true (as `statistics.holm_either`).
    """
    m, looks = different.shape[-2:]
    # What is found at a stricter level is found at a laxer one: the step-down rule is then the closed test.
    kinds = [np.logical_and.accumulate(c, 0) for c in (different, equivalent) if c is not None]
    outcome = np.zeros(different.shape[1:-1], int)
    look, free = np.full_like(outcome, -1), np.zeros(outcome.shape, bool)
    for k in range(looks):
        for _ in range(m):
            h = np.maximum(m - free.sum(-1), 1)
            here = [np.take_along_axis(c[..., k], (h - 1)[None, ..., None], 0)[0] for c in kinds]
            for kind, crossed in enumerate(here, 1):
                new = crossed & (outcome == 0)
                outcome[new], look[new] = kind, k
            free |= np.logical_and.reduce(here)
    return outcome, look


def sequential_p(d: ArrayLike, design: Design) -> float:
    """The smallest level at which d[n] had been found different by its last look; 1 where none is. Of one comparison."""
    return _least(lambda level: bool(crossings(d, design, level)[..., -1].all()))


def sequential_equivalence_p(d: ArrayLike, margin: float, design: Design) -> float:
    """The smallest level at which d[n] had been found within +-margin by its last look; 1 where none is."""
    return _least(lambda level: bool(equivalences(d, margin, design, level)[..., -1].all()))


def repeated_interval(d: ArrayLike, design: Design, level: float = 0.05) -> tuple[float, float]:
    """The shifts that d[n] had not refuted by its last look: covers the true one at all looks with 1 - level.

    An end is infinite where the looks so far can refute no shift, however far.
    """
    d = np.asarray(d, float)
    finite = d[np.isfinite(d)]
    if not len(finite):
        return -math.inf, math.inf
    centre = float(finite.mean() if design.statistic == "mean" else np.median(finite))
    scale = float(np.abs(finite - centre).max()) or abs(centre) or 1.0

    def refuted(shift: float) -> bool:
        return bool(crossings(d - shift, design, level)[..., -1].all())

    def end(sign: int) -> float:
        inside, outside = 0.0, 1.0
        while not refuted(centre + sign * scale * outside):
            inside, outside = outside, 2 * outside
            if outside > 2**8:
                return sign * math.inf
        for _ in range(20):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if refuted(centre + sign * scale * middle) else (middle, outside)
        return centre + sign * scale * inside

    return end(-1), end(1)


def signed_ranks(d: NDArray) -> NDArray:
    """Signed ranks of each row [..., n]: ties share theirs, and a difference of 0 has rank 0."""
    ranks = stats.rankdata(np.abs(d), axis=-1) - (d == 0).sum(-1, keepdims=True)
    return np.where(d == 0, 0.0, np.sign(d) * ranks)


def _sums(values: NDArray, most: int, two_sided: bool, draws: int) -> NDArray:
    """[problems, paths]: the statistic of every path, the observed one first.

    Two-sided, a path and its mirror image are one, so the first sign stays. The paths of a look follow each other as
    often as later seeds can turn out, so that what is known of them can be tiled.
    """
    n = values.shape[-1]
    if draws or most > EXACT_UP_TO:
        sums = values @ _group(most, draws or SAMPLED, two_sided)[:, :n].T
    else:
        sums = values[:, :1] if two_sided else np.concatenate([values[:, :1], -values[:, :1]], -1)
        for column in range(1, n):
            step = values[:, column : column + 1]
            sums = np.concatenate([sums + step, sums - step], -1)
    return np.abs(sums) if two_sided else sums


@cache
def _group(most: int, draws: int, two_sided: bool) -> NDArray:
    """Signs [draws, most] that are a group under multiplication: so the test is exact with these paths alone, too.

    As many seeds as can be go through all their signs; that of each other one is the product of a random half of them.
    """
    first, bits = int(two_sided), draws.bit_length() - 1
    single = [0] * first + [1 << bit for bit in range(bits)]
    others = [mask for mask in np.random.default_rng([most, draws]).permutation(draws).tolist() if mask.bit_count() > 1]
    masks = (single + others)[:most]
    odd = np.array([[(path & mask).bit_count() & 1 for mask in masks] for path in range(draws)])
    return 1.0 - 2.0 * odd


def _largest(sums: NDArray, count: int) -> NDArray:
    """Where the `count` largest of each row are [problems, count], in any order."""
    if count == sums.shape[-1]:
        return np.broadcast_to(np.arange(count), sums.shape)
    return np.argpartition(sums, -count, axis=-1)[:, -count:]


def _first_kept(high: NDArray, left: NDArray) -> NDArray:
    """[problems, 1]: the largest statistic that must stay where `left` paths of each problem can still go."""
    ordered = -np.sort(-high, -1)
    ordered = np.concatenate([ordered, np.full((len(ordered), 1), -np.inf)], -1)
    return np.take_along_axis(ordered, np.minimum(left, high.shape[-1])[:, None], -1)


def _least(found) -> float:
    """The smallest level at which something is found, by bisection of its logarithm."""
    low, high = math.log(1e-8), math.log(1 - 1e-6)
    if not found(math.exp(high)):
        return 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if found(math.exp(middle)) else (middle, high)
    return math.exp(high)
