"""Is a sequential study what it says? Its false verdicts, its power and its runs, measured by simulation.

A family of variants shares one baseline, as in an ablation. A variant's runs end with its verdict, the baseline's with
the last. `section` is the part of CALIBRATION.md that `calibration` hands on; `expect` is what a plan prints.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.inference import statistics
from analysis.inference.sequential import Design, crossings, equivalences, settle
from analysis.inference.simulation import ALPHA, FAMILY, SCENARIOS, bound

LOOKS = (8, 10, 12, 14, 16, 18, 20)
DESIGNS = {
    "fixed": None,
    "O'Brien-Fleming": Design(LOOKS),
    "Pocock": Design(LOOKS, "pocock"),
    "O'Brien-Fleming, rank": Design(LOOKS, statistic="rank"),
}
DRAWS = 4096  # paths of a simulated study
CHUNK = 500  # studies at a time
EFFECTS = (0.0, 0.5, 1.0, 2.0)  # d_z
MARGINS = (1.0, 1.5)  # standard deviations of a difference
# Of a difference; of accuracies that of two binomials at a rate of .95.
SD = dict(zip(SCENARIOS, (math.sqrt(2), math.sqrt(2), math.sqrt(2 * 0.95 * 0.05 / 1000), 2.0, 1.0), strict=True))

SECTION = """\
## Sequential studies

{repeats:,} studies a cell, Monte-Carlo error up to {error:.3f}: {m} variants on one baseline, looks at {looks} seeds,
alpha = {alpha}, family-wise. `fixed`: the deciding test with Holm, once, at {most} seeds.

### What is found, and the runs it takes

d_z is that of every variant: the share that is called better, and the mean number of runs ({fixed} without looking).

{found}

### False verdicts of better or worse

Family-wise, of studies whose variants do not differ from the baseline in the mean; `single` has one variant, the others
{m}. As in the fixed study nothing is exact where the shapes differ (`skewness`), and a tail as long as an exponential's
is not seen by tests at these n. Ranks ask about the typical run, which does differ there.

{errors}

### Stopping for equivalence

Variants that do not differ, with a margin in standard deviations of a difference: the mean number of runs, the share
that is called equivalent, and the share of studies with a false verdict of equivalence where every variant lies at the
margin. Both kinds of verdict share a comparison's part of alpha.

{equivalent}

### The mean of a study that stopped

The mean difference of variants when their verdict of better is given, or at the end, where the true one is .5 standard
deviations: a study stops where the mean happens to be large. Beside it, how often the repeated 95 % interval covers.

{inflated}
"""


class Expected(NamedTuple):
    """Of simulated studies: share of variants called better; share of studies with a variant called better or worse,
    and with one called equivalent; share of variants called equivalent; mean runs; mean difference when a variant
    ended; the same of those called better; share of variants whose true difference no look had refuted when they ended.
    """

    found: float
    different: float
    any_equivalent: float
    equivalent: float
    runs: float
    estimate: float
    estimate_found: float
    covered: float


def expect(
    design: Design | None, effect: ArrayLike, repeats: int, m: int = FAMILY, margin: float | None = None,
    scenario: str = "normal", alpha: float = ALPHA, seed: int = 0, most: int = LOOKS[-1], sets: int = 1,
) -> Expected:  # fmt: skip
    """Simulate studies of m variants that differ by `effect` standard deviations, all or each [m]; a design of None looks
    once, at `most` seeds. margin: for equivalence, in standard deviations. sets: teacher sets, which multiply the runs.
    """
    generator = np.random.default_rng([seed, m, sorted(SCENARIOS).index(scenario)])
    parts = []
    for start in range(0, repeats, CHUNK):
        count = min(CHUNK, repeats - start)
        n = design.most if design else most
        noise = SCENARIOS[scenario](generator, count, m, n) / SD[scenario]
        d = noise + np.broadcast_to(effect, m)[:, None]
        outcome, seeds, means = _fixed(d, alpha) if design is None else _sequential(d, design, alpha, margin)
        parts.append((outcome, seeds, means, _covers(noise, design, seeds, alpha)))
    outcome, seeds, estimate, covered = (np.concatenate(part) for part in zip(*parts, strict=True))
    better = (outcome == 1) & (estimate > 0)
    return Expected(
        float(better.mean()),
        float((outcome == 1).any(-1).mean()),
        float((outcome == 2).any(-1).mean()),
        float((outcome == 2).mean()),
        float(sets * (seeds.sum(-1) + seeds.max(-1)).mean()),
        float(estimate.mean()),
        float(estimate[better].mean()) if better.any() else math.nan,
        float(covered.mean()),
    )


def _covers(noise: NDArray, design: Design | None, seeds: NDArray, alpha: float) -> NDArray:
    """Whether the repeated interval (once, the t interval) holds the true difference when a variant ends [R, m]."""
    if design is None:
        t = statistics.paired_t(noise, 1 - alpha)
        return (t.low <= 0) & (t.high >= 0)
    refuted = crossings(noise, design, alpha, draws=DRAWS)[0]
    return ~np.take_along_axis(refuted, np.searchsorted(design.looks, seeds)[..., None], -1)[..., 0]


def _fixed(d: NDArray, alpha: float) -> tuple[NDArray, NDArray, NDArray]:
    """Outcome, seeds and mean of each variant [R, m] of studies that look once."""
    p = statistics.guarded(d)
    order = np.argsort(p, -1)
    adjusted = np.empty_like(p)
    m = p.shape[-1]
    steps = np.maximum.accumulate(np.take_along_axis(p, order, -1) * np.arange(m, 0, -1), -1)
    np.put_along_axis(adjusted, order, steps, -1)
    return (adjusted <= alpha).astype(int), np.full(p.shape, d.shape[-1]), d.mean(-1)


def _sequential(d: NDArray, design: Design, alpha: float, margin: float | None) -> tuple[NDArray, NDArray, NDArray]:
    """Outcome, seeds and mean of each variant [R, m] at its end."""
    levels = alpha / np.arange(1, d.shape[-2] + 1)
    different = crossings(d, design, levels, draws=DRAWS)
    equivalent = equivalences(d, margin, design, levels, DRAWS) if margin else None
    outcome, look = settle(different, equivalent)
    seeds = np.asarray(design.looks)[look]  # -1, where a comparison stays open, is the last
    means = d.cumsum(-1) / np.arange(1, d.shape[-1] + 1)
    return outcome, seeds, np.take_along_axis(means, seeds[..., None] - 1, -1)[..., 0]


def section(repeats: int) -> str:
    """The section of CALIBRATION.md on sequential studies, as Markdown."""
    looking = {name: design for name, design in DESIGNS.items() if design}

    def table(head: list[str], body: list[list[str]]) -> str:
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])

    found, errors = [], []
    limit = bound(repeats)
    for name, design in DESIGNS.items():
        mixed = [expect(design, e, repeats) for e in EFFECTS]
        found.append([name, *(f"{x.found:.3f}" for x in mixed), *(f"{x.runs:.0f}" for x in mixed)])
        wrong = [expect(design, 0.0, repeats, scenario=scenario).different for scenario in SCENARIOS]
        single = expect(design, 0.0, repeats, m=1).different
        errors.append([name, *(f"**{x:.3f}**" if x > limit else f"{x:.3f}" for x in [single, *wrong])])
    equivalent = []
    for name, design in looking.items():
        for margin in MARGINS:
            null = expect(design, 0.0, repeats, margin=margin)
            edge = expect(design, margin, repeats, margin=margin)
            cells = f"{null.runs:.0f}", f"{null.equivalent:.3f}", f"{edge.any_equivalent:.3f}"
            equivalent.append([f"{name}, margin {margin:g}", *cells])
    inflated = []
    for name, design in looking.items():
        half = expect(design, 0.5, repeats)
        inflated.append([name, f"{half.estimate_found:.2f}", f"{half.estimate:.2f}", f"{half.covered:.3f}"])
    return SECTION.format(
        repeats=repeats, error=3 * math.sqrt(0.25 / repeats), m=FAMILY, looks=", ".join(map(str, LOOKS)), alpha=ALPHA,
        most=LOOKS[-1], fixed=LOOKS[-1] * (FAMILY + 1),
        found=table(["", *(f"found, d_z {e:g}" for e in EFFECTS), *(f"runs, d_z {e:g}" for e in EFFECTS)], found),
        errors=table(["", "single, normal", *SCENARIOS], errors),
        equivalent=table(["", "runs", "equivalent", "false equivalence"], equivalent),
        inflated=table(["", "mean where better", "mean at the end", "repeated interval covers"], inflated),
    )  # fmt: skip
