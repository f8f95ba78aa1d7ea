"""Are the tests what they say? The measured form of `simulation`, as one page in Markdown.

`python -m analysis simulate` runs the fast form; with `--full -o analysis/inference/CALIBRATION.md` it wrote that file.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from analysis.inference import power, resampling, sequential_calibration
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
    hierarchical_coverage,
)

FULL = {"repeats": 10_000, "sizes": tuple(range(3, 21)), "coverage": 4_000, "sequential": 4_000}
FAST = {"repeats": 400, "sizes": (3, 6, 8, 12, 20), "coverage": 200, "sequential": 100}
TESTS = ("guarded", "t")
FAMILIES = (1, FAMILY, 10)
LAYERS = ((2, 8), (3, 8), (5, 8), (8, 8), (10, 8), (8, 3), (8, 5), (8, 16))  # teacher sets, seeds
SPREADS = tuple((sets, seeds) for seeds in (0.0, 1.0) for sets in (0.0, 0.5, 1.0, 2.0))  # sd over that between runs
ERRORS = (("guarded", 1), ("guarded", FAMILY), ("guarded", 10), ("t", 1), ("t", FAMILY))  # test, family

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

## False equivalence (the true difference is the margin)

{equivalence}

## Coverage of 95 % intervals

The t interval is the one reported. The percentile bootstrap over seeds is here to say why it is not.

{coverage}

## Seeds crossed with teacher sets

Error of the deciding test where a seed acts alike in all teacher sets: differences averaged over sets first
(as `analysis.records.pairing` does), and every pair of runs counted as independent.

{units}

## Coverage of the hierarchical 95 % interval (teacher sets crossed with seeds)

For the mean over all teachers. Columns: sd between teacher sets, and sd of what a seed does alike in all sets, over
sd between runs. Few sets or few seeds make it too narrow; reports with fewer than {enough} of either say so.
From there on it covers about .90 or more.

{layers}

{sequential}"""


def _layer(place: tuple[int, int], repeats: int) -> list[float]:
    """All columns of one design."""
    return [hierarchical_coverage(*place, repeats, *spread) for spread in SPREADS]


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
        "equivalence": [false_equivalence(n, repeats)],
        "coverage": [
            *(coverage(kind, n, repeats) for kind in ("normal", "accuracy", "skewness 1")),
            coverage("bootstrap", n, covered),
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
    return _document(rows, crossed, layers, form)


def _document(
    rows: dict[int, dict[str, list[float]]],
    crossed: dict[tuple[int, int], list[float]],
    layers: dict[tuple[int, int], list[float]],
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
    intervals = ["t, normal", "t, accuracy", "t, skewness 1", "percentile bootstrap, normal"]
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
        layers=table(["sets x seeds", *(f"sets {a:g}, seed {b:g}" for a, b in SPREADS)], spreads),
        enough=resampling.ENOUGH,
        sequential=sequential_calibration.section(form["sequential"]),
    )
