"""Error rates, power and coverage where the design is more than n differences: runs that are lost, several teachers,
several families, arms that are not there yet, networks on one data set. All by simulation, as in `simulation`.

A collapsed run is 20 sd worse than the others; a failed one is the worst of its pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.inference import power, ranks, statistics
from analysis.inference.crossed import over_images, over_teachers
from analysis.inference.simulation import ALPHA, FAMILY, claimed

COLLAPSED = 20.0
MARGIN = 2.0  # in sd of a difference, where equivalence is asked for


def failed_error(n: int, rate: float, repeats: int, k: int = FAMILY, seed: int = 0) -> float:
    """Share of families with a false verdict where all arms are alike and every run fails at this rate."""
    generator = np.random.default_rng([seed, n, 11])
    runs = generator.normal(size=(repeats, k + 1, n))
    runs[generator.random(runs.shape) < rate] = np.inf
    with np.errstate(invalid="ignore"):
        d = np.nan_to_num(runs[:, 1:] - runs[:, :1], nan=0.0, posinf=np.inf, neginf=-np.inf)  # both failed: a tie
    return float(_decided(d, ALPHA / k).any(-1).mean())


def failed_verdicts(n: int, rate: float, effect: float, repeats: int, seed: int = 0) -> tuple[float, float]:
    """(better by the survivors' means alone, better as it is decided) for a variant of which runs fail at this rate.

    effect: by how much the runs that finish are better, in sd of a difference.
    """
    generator = np.random.default_rng([seed, n, 12])
    d = generator.normal(-effect, 1, (repeats, n))
    lost = generator.random(d.shape) < rate
    left = [row[~gone] for row, gone in zip(d, lost, strict=True)]
    alone = [len(row) > 1 and row.mean() < 0 and bool(claimed(row[None], ALPHA)[0]) for row in left]
    d[lost] = np.inf
    typical = np.array([ranks.signed_ranks(row).sum() < 0 for row in d])
    return float(np.mean(alone)), float((_decided(d, ALPHA) & typical).mean())


def collapsed_power(n: int, rate: float, effect: float, repeats: int, k: int = 1, seed: int = 0) -> tuple[float, float]:
    """(guarded, rank) share found of a typical effect, in sd, where seeds of the variant collapse at this rate."""
    d = _collapsing(n, rate, effect, repeats, seed)
    return float(claimed(d, ALPHA / k).mean()), float((ranks.signed_rank(d) <= ALPHA / k).mean())


def collapsed_error(n: int, rate: float, repeats: int, seed: int = 0) -> tuple[float, float]:
    """(guarded, rank) share called better where the means are EQUAL: what is typically gained is lost in collapses."""
    d = _collapsing(n, rate, rate * COLLAPSED, repeats, seed)
    better = d.mean(-1) < 0
    typical = np.array([ranks.signed_ranks(row).sum() < 0 for row in d])
    return float((claimed(d, ALPHA) & better).mean()), float(((ranks.signed_rank(d) <= ALPHA) & typical).mean())


def _collapsing(n: int, rate: float, effect: float, repeats: int, seed: int) -> NDArray:
    generator = np.random.default_rng([seed, n, 13])
    d = generator.normal(-effect, 1, (repeats, n))
    return d + COLLAPSED * (generator.random(d.shape) < rate)


def _decided(d: NDArray, level: float) -> NDArray:
    """The decision of each of d[..., n] by itself: by ranks where a run failed, else by the guarded test."""
    failed = np.isinf(d).any(-1)
    found = np.zeros(failed.shape, bool)
    found[failed] = ranks.signed_rank(d[failed]) <= level
    found[~failed] = claimed(d[~failed], level)
    return found


def teacher_coverage(sets: int, seeds: int, repeats: int, spread: float, shared: float = 0.0, seed: int = 0) -> float:
    """Coverage of the crossed random-effects interval for the mean over ALL teachers and seeds.

    spread: sd between teacher sets over sd between runs; shared: that of what a seed does alike in all sets.
    """
    found = over_teachers(_crossed(sets, seeds, repeats, spread, shared, seed))
    return float(((found.low <= 0) & (found.high >= 0)).mean())


def seeds_only_coverage(
    sets: int, seeds: int, repeats: int, spread: float, shared: float = 0.0, seed: int = 0
) -> float:
    """Coverage of the t interval over seeds for the same mean, for which it is not made."""
    found = statistics.paired_t(_crossed(sets, seeds, repeats, spread, shared, seed).mean(1))
    return float(((found.low <= 0) & (found.high >= 0)).mean())


def _crossed(sets: int, seeds: int, repeats: int, spread: float, shared: float, seed: int) -> NDArray:
    generator = np.random.default_rng([seed, sets, seeds])
    d = spread * generator.normal(size=(repeats, sets, 1)) + generator.normal(size=(repeats, sets, seeds))
    return d + shared * generator.normal(size=(repeats, 1, seeds))


def image_coverage(sets: int, seeds: int, repeats: int, spread: float, images: int = 200, seed: int = 0) -> float:
    """Coverage of the interval over teachers, seeds and test images; the images' mean moves as much as a run's noise."""
    generator = np.random.default_rng([seed, sets, seeds, 14])
    hits = 0
    for _ in range(repeats):
        d = spread * generator.normal(size=(sets, 1, 1)) + generator.normal(size=(sets, seeds, 1))
        d = d + generator.normal(0, np.sqrt(images), (1, 1, images)) + generator.normal(size=(sets, seeds, images))
        found = over_images(d)
        hits += bool(found.low <= 0 <= found.high)
    return hits / repeats


def study_error(n: int, repeats: int, seed: int = 0) -> float:
    """Share of studies with a false verdict in ANY of three families (variants, ladder, factorial) of six equal arms."""
    kd, ens, wa, tdiv, wa_tdiv, both = np.moveaxis(
        np.random.default_rng([seed, n, 15]).normal(size=(repeats, 6, n)), 1, 0
    )
    families = (
        (kd - ens, wa - ens, tdiv - ens, both - ens),
        (ens - kd, wa - ens, wa_tdiv - wa, both - wa_tdiv),
        ((wa + wa_tdiv - ens - tdiv) / 2, (tdiv + wa_tdiv - ens - wa) / 2, wa_tdiv + ens - wa - tdiv),
    )
    wrong = [claimed(np.stack(family), ALPHA / len(family)).any(0) for family in families]
    return float(np.any(wrong, 0).mean())


def claims_error(n: int, repeats: int, seed: int = 0) -> tuple[float, float]:
    """(two Holms, one level) share of families of four with a false claim: two arms are alike, two differ by the margin."""
    d = np.random.default_rng([seed, n, 16]).normal(size=(repeats, 4, n))
    d[:, 2:] += MARGIN
    differ, alike = statistics.guarded(d), statistics.equivalence(d, MARGIN)
    wrong = []
    for p, q in zip(differ, alike, strict=True):
        for claims in ((statistics.holm(p), statistics.holm(q)), statistics.holm_either(p, q)):
            wrong.append((claims[0][:2] <= ALPHA).any() or (claims[1][2:] <= ALPHA).any())
    return float(np.mean(wrong[::2])), float(np.mean(wrong[1::2]))


def arriving_error(n: int, repeats: int, k: int = FAMILY, seed: int = 0) -> tuple[float, float]:
    """(size of what is there, declared size) share of false verdicts where a report is made as each arm arrives."""
    runs = np.random.default_rng([seed, n, 17]).normal(size=(repeats, k + 1, n))
    d = runs[:, 1:] - runs[:, :1]
    arriving = np.any([claimed(d[:, :size], ALPHA / size).any(-1) for size in range(1, k + 1)], 0)
    return float(arriving.mean()), float(claimed(d, ALPHA / k).any(-1).mean())


def foreseen_power(n: int, repeats: int, seed: int = 0) -> tuple[float, ...]:
    """True power at the difference that is called detectable, over studies: its 10 % and 90 % quantiles where the sd that
    was seen is taken for the true one; and the share of studies with 80 % or more, at that sd and at its upper limit.
    """
    sd = np.random.default_rng([seed, n, 18]).normal(size=(repeats, n)).std(-1, ddof=1)
    unit = power.detectable(1.0, n)
    seen = power.power(sd * unit, n)
    upper = power.power(np.array([power.largest_sd(value, n) for value in sd]) * unit, n)
    return (*np.quantile(seen, [0.1, 0.9]), float((seen >= 0.8).mean()), float((upper >= 0.8).mean()))


def networks_error(data: int, networks: int, repeats: int, seed: int = 0) -> tuple[float, float]:
    """(networks as blocks, averaged) share of false verdicts on two arms; what a data set does is alike in its networks."""
    generator = np.random.default_rng([seed, data, networks])
    d = generator.normal(size=(repeats, data, 1)) + 0.5 * generator.normal(size=(repeats, data, networks))
    units = d.reshape(repeats, -1), d.mean(-1)
    return tuple(float((ranks.signed_rank(unit) <= ALPHA).mean()) for unit in units)
