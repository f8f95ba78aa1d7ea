"""Every figure that a set of runs allows; and each of them by name.

Every function takes the table of runs (or contrasts) and returns a matplotlib Figure:

    figures.slopes(runs, "combined", "kd", "nll").savefig("slopes.pdf")
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.errors import AnalysisError
from analysis.report.figures.comparisons import forest, interaction, pareto, slopes
from analysis.report.figures.runs import curves, diversity, paths, reliability
from analysis.report.figures.style import save, svg
from analysis.report.order import blocks_of
from analysis.verdicts.contrasts import compute
from analysis.verdicts.words import difference

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.records.study import Study
    from analysis.verdicts.contrast import Contrast

__all__ = [
    "Drawn", "curves", "diversity", "everything", "forest", "interaction", "pareto", "paths", "reliability",
    "save", "slopes", "svg",
]  # fmt: skip


LONGEST = 180  # bytes of a file's name, which has its form and a number to come


class Drawn(NamedTuple):
    """A figure with a file name, a title, and what it shows for those who cannot see it."""

    name: str
    title: str
    alt: str
    figure: Figure


def everything(runs: pd.DataFrame, study: Study, found: list[Contrast] | None = None) -> Iterator[Drawn]:
    """Every figure that these runs allow, in the order of the report. Figures without data are left out."""
    done = runs[runs["status"] == "done"]
    study = study.complete(present(done))
    m = metrics.metric(study.primary)
    found = compute(runs, study, [study.primary]) if found is None else found
    primary = [c for c in found if c.metric == study.primary]
    if any(c.n > 1 for c in primary):
        yield Drawn("forest", f"Differences in {m.label}", _forest_alt(primary, m), forest(primary, study.primary))
    blocks = blocks_of(done)
    taken = {"forest"}
    for name, block in blocks:
        stem, where = (name.replace(" x ", "-") + "-", f" ({name})") if len(blocks) > 1 else ("", "")
        for drawn in _of_block(stem, where, name, block, study, primary):
            yield drawn._replace(name=_file_name(drawn.name, taken))


def _of_block(
    stem: str, where: str, name: str, block: pd.DataFrame, study: Study, primary: list[Contrast]
) -> Iterator[Drawn]:
    m = metrics.metric(study.primary)
    for family in study.families:
        if family.kind == "factorial" and not family.absent(present(block)):
            cells = ", ".join(f"{arm} {m.text(block.loc[block['arm'] == arm, m.column].mean())}" for arm in family.arms)
            yield from _try(
                f"{stem}interaction-{family.name}",
                f"{family.names[0]} x {family.names[1]}{where}",
                f"{m.label} of the four cells: {cells}.",
                lambda family=family: interaction(block, family, m.column),
            )
    done: set[tuple[str, str]] = set()
    for c in primary:
        if c.reference and c.block == name and (c.variant, c.reference) not in done and c.n:
            done.add((c.variant, c.reference))
            yield from _try(
                f"{stem}slopes-{_slug(c.variant)}-{_slug(c.reference)}",
                f"{c.variant} against {c.reference}, pair by pair{where}",
                f"{m.label} per pair of runs: mean {m.text(c.mean_reference)} for {c.reference}, "
                f"{m.text(c.mean_variant)} for {c.variant}, {c.n} seeds.",
                lambda c=c: slopes(block, c.variant, c.reference, m.column),
            )
    others = (
        ("cost", f"{m.label} against cost", "A point per arm: mean device time and mean of the metric.",
         lambda: pareto(block, study)),
        ("curves", "Learning curves",
         "Validation metric by epoch, and its paired difference to the baseline.",
         lambda: curves(block, study)),
        ("reliability", "Reliability",
         "Accuracy by confidence in 15 bins, one panel per arm, all runs pooled.",
         lambda: reliability(block, study)),
        ("paths", "Loss along the path between members",
         "Loss on the straight line between pairs of members.",
         lambda: paths(block)),
        ("diversity", "Diversity of teachers and students",
         "Pairwise KL, disagreement and ambiguity by split.",
         lambda: diversity(block)),
    )  # fmt: skip
    for short, title, alt, draw in others:
        yield from _try(stem + short, title + where, alt, draw)


def _try(name: str, title: str, alt: str, draw: Callable[[], Figure]) -> Iterator[Drawn]:
    """The figure, or nothing where its data are not there."""
    try:
        yield Drawn(name, title, alt, draw())
    except AnalysisError:
        return


def _forest_alt(found: list[Contrast], m: metrics.Metric) -> str:
    parts = [
        f"{c.variant}{' minus ' + c.reference if c.reference else ''}: {difference(c)}, {c.verdict}" for c in found
    ]
    return f"Differences in {m.label} with 95 % intervals. " + "; ".join(parts) + "."


def _file_name(name: str, taken: set[str]) -> str:
    """A name that leads out of no folder, and that no other figure has."""
    safe = re.sub(r"[^\w-]", "_", name).encode()[:LONGEST].decode(errors="ignore")
    others = (f"{safe}-{k}" for k in itertools.count(2))
    unique = next(name for name in itertools.chain([safe], others) if name not in taken)
    taken.add(unique)
    return unique


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).strip("_")
