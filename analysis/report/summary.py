"""All tables of a set of runs with the sentences that go with them: what `python -m analysis runs` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.declared import beyond, outside
from analysis.records.loading import failures
from analysis.records.oddities import oddities
from analysis.records.texts import few
from analysis.report.tables.ablation import ablation, cross
from analysis.report.tables.contrasts import cell_tables, contrast_table, switches
from analysis.report.tables.costs import costs
from analysis.report.tables.table import Table
from analysis.verdicts import words
from analysis.verdicts.contrasts import compute
from analysis.verdicts.factorial import cell_means, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from analysis.records.study import Study
    from analysis.verdicts.contrast import Contrast


@dataclass
class Summary:
    """tables in reading order; verdicts on the primary metric, limits, leftovers; all contrasts; the one sentence that
    stands for all verdicts where there are too few seeds for any.
    """

    tables: list[Table]
    verdicts: list[str]
    factorials: list[str]
    limits: list[str]
    missing: list[str]
    found: list[Contrast] = field(repr=False)
    short: str = ""

    @property
    def lines(self) -> list[str]:
        """Everything in words, the verdicts first."""
        return [
            "Verdicts",
            *(f"  {v}" for v in self.verdicts),
            "Limits",
            *(f"  {v}" for v in (*self.limits, *self.missing)),
        ]


def summarise(runs: pd.DataFrame, study: Study, columns: tuple[str, ...] | None = None) -> Summary:
    """Tables, verdicts and limits of the runs under the study."""
    study = study.complete(present(runs))
    found = compute(runs, study, list(columns) if columns else None)
    primary = [c for c in found if c.metric == study.primary]
    shown = ablation(runs, study, found, columns)
    shown += [t for t in (cross(runs, study),) if t]
    for family in study.families:
        mine = [c for c in primary if c.family == family.name]
        if mine and family.kind != "against":
            shown.append(contrast_table(mine, f"{family.name} ({metrics.metric(study.primary).label})"))
        if mine and family.kind == "factorial":
            shown += cell_tables(cell_means(runs, study), family.name, mine)
    shown += switches(runs, study)
    shown += costs(runs, study)
    short = words.too_few(primary)
    verdicts = [short] if short else [f"[{c.family}] {place(c, primary)}{text}" for c, text in told(primary)]
    factorials = []
    for family in study.families if not short else ():
        if family.kind == "factorial":
            for block in dict.fromkeys(c.block for c in primary if c.family == family.name):
                mine = [c for c in primary if c.family == family.name and c.block == block]
                factorials.append(f"[{family.name}] {place(mine[0], primary)}{in_words(mine)}")
    limits = words.limits(primary) + declared(runs, study) + beyond(runs, study)
    return Summary(shown, verdicts, factorials, limits, missing(runs, study), found, short)


def told(found: list[Contrast]) -> Iterator[tuple[Contrast, str]]:
    """Each contrast in words; of one that an earlier family has too, be it the other way round, the verdict alone."""
    first: dict[Any, Contrast] = {}
    for c in found:
        before = first.setdefault(c.compared, c)
        yield c, c.words if before is c else f"{words.claim(c)} See [{before.family}]."


def place(c: Contrast, among: list[Contrast]) -> str:
    """`digits x wrn16_2: ` where there are several places."""
    return f"{c.block}: " if len({other.block for other in among}) > 1 else ""


def declared(runs: pd.DataFrame, study: Study) -> list[str]:
    """How far the design was fixed before the runs: by what their own records say, not by a file given later."""
    if not all(family.declared for family in study.families):
        return ["No families were declared before the runs: every verdict is exploratory."]
    if study.sequential:
        return [
            "A sequential study, which its looks decide (`python -m analysis RUNS`): what is said here as if the number of "
            "seeds had been fixed is exploratory."
        ]
    strangers = outside(runs, study)
    if not strangers:
        return [
            f"Families, primary metric and margins were declared before the runs; tests at family-wise {study.alpha:g}."
        ]
    if study.source != "records" and len(strangers) == len(runs):
        return [f"Families are declared in {study.source}; the records do not say so: every verdict is exploratory."]
    return [
        f"{len(strangers)} of {len(runs)} runs do not declare this study in their records ({few(strangers)}): the verdicts "
        "of families that they are in are exploratory."
    ]


def missing(runs: pd.DataFrame, study: Study) -> list[str]:
    """Failed, unfinished and odd runs, and declared arms that have none."""
    lines = []
    failed = failures(runs)
    if len(failed):
        names = "; ".join(f"{r.run} ({r.arm}, seed {r.seed}): {r.status}" for r in failed.head(5).itertuples())
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        lines.append(
            f"{len(failed)} runs did not end well: {names}{more}. They are in no mean; those that failed or diverged are "
            "the worst of their pair where ranks are compared."
        )
    if runs.attrs.get("unfinished"):
        lines.append(f"{len(runs.attrs['unfinished'])} runs have not finished yet.")
    arms = present(runs)
    absent = sorted({arm for family in study.families for arm in family.absent(arms)})
    if absent:
        lines.append(f"Declared but without finished runs: {', '.join(absent)}.")
    lines += oddities(runs)
    return lines + [f"Mixed: {text}" for text in runs.attrs.get("mixed", [])]
