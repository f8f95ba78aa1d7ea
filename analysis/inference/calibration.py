"""Are the tests what they say? The measured form of `simulation`, as one page in Markdown.

`python -m analysis simulate` runs the fast form; with `--full -o analysis/inference/CALIBRATION.md` it wrote that file.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from analysis.inference import designs, power
from analysis.inference.simulation import (
    ALPHA,
    FAMILY,
    SCENARIOS,
    bound,
    coverage,
    crossed_error,
    false_equivalence,
    family_error,
    found,
    one_sided_error,
)

FULL = {"repeats": 10_000, "sizes": tuple(range(3, 21)), "coverage": 4_000}
FAST = {"repeats": 400, "sizes": (3, 6, 8, 12, 20), "coverage": 200}
TESTS = ("guarded", "t")
FAMILIES = (1, FAMILY, 10)
LAYERS = ((2, 8), (3, 8), (5, 8), (8, 8), (10, 8), (8, 3), (3, 16))  # teacher sets, seeds
SPREADS = ((0, 0), (0.5, 0), (1, 0), (2, 0), (1, 1), (2, 1))  # sd of sets, of seeds, over that between runs
ERRORS = (("guarded", 1), ("guarded", FAMILY), ("guarded", 10), ("t", 1), ("t", FAMILY))  # test, family
SKEWS = (-2.0, -1.0, 0.0, 1.0, 2.0)

PAGE = """\
# Calibration of the tests

Written by `{command}`: {repeats:,} families a cell, alpha = {alpha}.
Monte-Carlo error lets a true .05 reach {bound:.4f}; larger shares are bold.

- `normal`, `skewed runs`, `accuracy`: the methods do not differ (see `analysis/inference/simulation.py`). The
  deciding test is exact there at every n, whatever the shape of the noise.
- `skewness 1`: equal means, differently shaped noise. Nothing is exact; the deciding test keeps its level in
  families of up to four, the plain t does not. In a family of ten it reaches about .06.
- `skewness 2`: differences as skewed as an exponential. The deciding test exceeds its level below n of about
  15 in families, up to about half of what the plain t does. No test that finds effects of d_z = 2 with ten
  seeds can see a tail that ten seeds have not shown.
- Zeros are floors: n = 3 to 5 cannot reach .05 with an exact test, nor n = 3 to 7 in a family of four.

## Share of families with a false verdict of better or worse

{errors}

## Power, normal differences

What exactness and the guard cost: compare `guarded` with `t`.

{power}

## Power at the difference that is called detectable

Reports say which true difference n seeds would have found with 80 % power (`analysis/inference/power.py`). d_z: that
difference over the sd; found: how often the deciding test found it, as the first of its family. `-`: no difference
can be found.

{detectable}

The sd that was seen is not the true one. The true power at the difference that is called detectable, for n seeds: where
80 % of studies lie at the sd that was seen, the share of studies that have 80 % or more there, and the same at the upper
80 % limit of the sd. Reports print the range of both.

{foreseen}

## The typical run: rank against the deciding test

Normal differences: share found of d_z = 1. Collapse: each seed of the variant ends 20 sd worse at the rate q; share found of
a typical gain of 1.5 sd.

{typical}

Equal means and rare collapses: what is typically gained is lost again. Share called better: no error of a statement about
the typical run, and one about the mean. So the words say "typical run" where runs collapsed, and the collapse stands beside
it.

{lost}

## Failed runs

A failed run is the worst of its pair and ranks decide. Share of families of four with a false verdict where every run of
every arm fails at the rate; and the share called better where a third of the variant's runs fails and the others gain 1.5 sd,
by the survivors' means alone and as it is decided.

{failed}

## One-sided error at the margin

Share called "not worse by more than the margin" where the loss is the margin itself, by the skewness of the differences
(signed so that more is better).

{sided}

## Claims of difference and of equivalence; arms that arrive; several families

Families of four, two of equal arms and two that differ by the margin (2 sd): share with a false claim under two Holm
procedures side by side, and as they share one level. Families of four equal arms with a report as each arrives: by the
size of what is there, and by the declared size. Studies of three families (variants, ladder, factorial) of six equal arms:
share with a false verdict in any of them; each family holds its level by itself.

{claims}

## Networks on one data set

Two equal arms; a data set moves the difference alike in all its networks. Share of false verdicts with every network a
block of its own, and averaged within data sets (signed rank; fewer than six data sets decide nothing).

{networks}

## False equivalence (the true difference is the margin)

{equivalence}

## Coverage of 95 % intervals

The t interval over seeds, the exact interval of the typical run (none below n = 6), and the percentile bootstrap, which is
here to say why it is not used.

{coverage}

## Seeds crossed with teacher sets

Error of the deciding test where a seed acts alike in all teacher sets: differences averaged over sets first
(as `analysis.records.pairing` does), and every pair of runs counted as independent.

{units}

## Coverage of the 95 % interval over teachers (teacher sets crossed with seeds)

For the mean over all teachers. Columns: sd between teacher sets, and sd of what a seed does alike in all sets, over
sd between runs; last, the t interval over seeds at sets 1, seed 0, which is for these teacher sets only.

{layers}

The interval over teachers, seeds and test images of `compare` covers {images} (1 x 8, 3 x 8, 3 x 8 with sets 1; 200 images).
"""


def _layer(place: tuple[int, int], repeats: int) -> list[float]:
    """All columns of one design."""
    covered = [designs.teacher_coverage(*place, repeats, *spread) for spread in SPREADS]
    return [*covered, designs.seeds_only_coverage(*place, repeats, 1.0)]


def _detectable(n: int, repeats: int, k: int) -> tuple[float, float]:
    """The d_z that is called detectable in a family of k, and how often it is found; NaN where none can be."""
    effect = power.detectable(1.0, n, ALPHA / k)
    return effect, math.nan if math.isnan(effect) else found(effect, n, repeats, k)


def _row(n: int, repeats: int, covered: int) -> dict[str, list[float]]:
    """All columns of one n."""
    return {
        **{f"error, {test}, {k}": [family_error(s, n, repeats, k, test) for s in SCENARIOS] for test, k in ERRORS},
        "power": [found(e, n, repeats, k, test) for k in (1, FAMILY) for e in (1, 2, 3) for test in TESTS],
        "detectable": [value for k in FAMILIES for value in _detectable(n, repeats, k)],
        "typical": [
            *(found(1, n, repeats, k, test) for k in (1, FAMILY) for test in ("guarded", "rank")),
            *(value for rate in (0.02, 0.05, 0.1) for value in designs.collapsed_power(n, rate, 1.5, repeats)),
        ],
        "lost": [value for rate in (0.02, 0.05) for value in designs.collapsed_error(n, rate, repeats)],
        "failed": [
            *(designs.failed_error(n, rate, repeats) for rate in (0.05, 0.2)),
            *designs.failed_verdicts(n, 1 / 3, 1.5, covered),
        ],
        "sided": [one_sided_error(skewness, n, repeats) for skewness in SKEWS],
        "foreseen": list(designs.foreseen_power(n, covered)) if n > 5 else [math.nan] * 4,
        "claims": [
            *designs.claims_error(n, covered // 4),
            *designs.arriving_error(n, repeats),
            designs.study_error(n, repeats),
        ],
        "equivalence": [false_equivalence(n, repeats)],
        "coverage": [
            *(coverage(kind, n, repeats) for kind in ("normal", "accuracy", "skewness 1")),
            coverage("typical", n, repeats),
            coverage("bootstrap", n, covered // 4),
        ],
    }


def run(full: bool = False, jobs: int = 1) -> str:
    """All tables as Markdown."""
    form = FULL if full else FAST
    task = partial(_row, repeats=form["repeats"], covered=form["coverage"])
    layer = partial(_layer, repeats=form["coverage"])
    with ProcessPoolExecutor(jobs) if jobs > 1 else nullcontext() as pool:
        each = pool.map if pool else map
        # The largest n take longest, so they start first.
        rows = dict(zip(form["sizes"][::-1], each(task, form["sizes"][::-1]), strict=True))
        layers = dict(zip(LAYERS, each(layer, LAYERS), strict=True))
    repeats = form["repeats"]
    crossed = {
        (seeds, sets): [crossed_error(seeds, sets, repeats, by_seed) for by_seed in (True, False)]
        for seeds, sets in ((8, 3), (10, 2))
    }
    networks = {
        (data, count): designs.networks_error(data, count, repeats) for data in (6, 8, 10) for count in (2, 3, 4)
    }
    images = [
        designs.image_coverage(*place, form["coverage"] // 4, s) for *place, s in ((1, 8, 0), (3, 8, 0), (3, 8, 1))
    ]
    return _document(rows, crossed, layers, networks, images, form)


def _document(
    rows: dict[int, dict[str, list[float]]],
    crossed: dict[tuple[int, int], list[float]],
    layers: dict[tuple[int, int], list[float]],
    networks: dict[tuple[int, int], tuple[float, float]],
    images: list[float],
    form: dict,
) -> str:
    def table(head: list[str], body: list[list[str]]) -> str:
        lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])

    def by_n(key: str, head: list[str], marked: tuple[str, ...] = ()) -> str:
        limit = bound(form["repeats"])
        body = []
        for n in sorted(rows):
            cells = [
                "-" if math.isnan(value) else f"**{value:.3f}**" if name in marked and value > limit else f"{value:.3f}"
                for name, value in zip(head, rows[n][key], strict=True)
            ]
            body.append([str(n), *cells])
        return table(["n", *head], body)

    names = list(SCENARIOS)
    powers = [f"{test}, d_z {e}, family {k}" for k in (1, FAMILY) for e in (1, 2, 3) for test in TESTS]
    title = {"guarded": "Deciding test (guarded)", "t": "Plain paired t"}
    errors = [
        f"### {title[test]}, {f'family of {k} under Holm' if k > 1 else 'one comparison'}\n\n"
        + by_n(f"error, {test}, {k}", names, tuple(names))
        for test, k in ERRORS
    ]
    intervals = ["t, normal", "t, accuracy", "t, skewness 1", "typical run, normal", "percentile bootstrap, normal"]
    typical = [f"{test}, d_z 1, family {k}" for k in (1, FAMILY) for test in ("guarded", "rank")]
    typical += [f"{test}, q {rate:g}" for rate in (0.02, 0.05, 0.1) for test in ("guarded", "rank")]
    lost = [f"{test}, q {rate:g}" for rate in (0.02, 0.05) for test in ("guarded", "rank")]
    failed = ["all fail at .05", "all fail at .2", "survivors alone", "as decided"]
    claims = ["two Holms", "one level", "arriving, size there", "arriving, declared", "three families"]
    foreseen = ["10 % of studies", "90 % of studies", "at least .8, sd seen", "at least .8, upper limit"]
    units = [[f"{a} x {b}", *(f"{v:.3f}" for v in values)] for (a, b), values in crossed.items()]
    spreads = [[f"{a} x {b}", *(f"{v:.2f}" for v in values)] for (a, b), values in layers.items()]
    detectable = [f"{what}, family {k}" for k in FAMILIES for what in ("d_z", "found")]
    return PAGE.format(
        command="python -m analysis simulate" + (" --full" if form is FULL else ""),
        repeats=form["repeats"],
        alpha=ALPHA,
        bound=bound(form["repeats"]),
        errors="\n\n".join(errors),
        power=by_n("power", powers),
        equivalence=by_n("equivalence", ["share"], ("share",)),
        coverage=by_n("coverage", intervals),
        units=table(["seeds x sets", "seeds as units", "pairs as units"], units),
        detectable=by_n("detectable", detectable),
        layers=table(["sets x seeds", *(f"sets {a:g}, seed {b:g}" for a, b in SPREADS), "over seeds only"], spreads),
        typical=by_n("typical", typical),
        lost=by_n("lost", lost),
        failed=by_n("failed", failed, tuple(failed[:2])),
        sided=by_n(
            "sided", [f"skewness {skewness:+g}" for skewness in SKEWS], tuple(f"skewness {s:+g}" for s in SKEWS)
        ),
        foreseen=by_n("foreseen", foreseen),
        claims=by_n("claims", claims, tuple(claims)),
        networks=table(
            ["data sets x networks", "networks as blocks", "averaged"],
            [[f"{a} x {b}", *(f"{v:.3f}" for v in values)] for (a, b), values in networks.items()],
        ),
        images=", ".join(f"{value:.2f}" for value in images),
    )
