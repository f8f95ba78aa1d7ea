"""A look at a sequential study: how each of its comparisons stands, and which arms need not run on.

A seed counts when all arms that are still open have ended on it, with every teacher set. A run that failed, diverged or
has no finite value is the worst: of ranks, an infinite one; of a mean, the worst value that any run of the compared
arms had by the look that its seed came in with, which no later look changes. What other arms a folder has does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.inference import sequential, statistics
from analysis.records import metrics
from analysis.records.declared import outside
from analysis.records.errors import AnalysisError
from analysis.records.looks import as_json
from analysis.records.outcomes import ended, failed
from analysis.records.texts import few
from analysis.verdicts.contrast import Comparison
from analysis.verdicts.contrasts import comparisons_of

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.looks import Look, Standing
    from analysis.records.study import Study

NAMES = {1: "better", -1: "worse", 2: "equivalent"}
Place = tuple[str, str]  # data set, network


def design_of(study: Study) -> sequential.Design:
    """The design that a sequential study declares."""
    return sequential.Design(study.sequential.looks, study.sequential.spending, study.sequential.statistic)


def compared(study: Study) -> dict[str, list[Comparison]]:
    """The comparisons of each declared family, by its name; their number does not depend on which runs are there."""
    return {family.name: comparisons_of(family, family.absent([])) for family in study.families}


@dataclass(frozen=True)
class Outcomes:
    """The primary metric of every ended run of one place.

    values: [sets x seeds, arms], indexed by (set, seed), infinite where a run is the worst, NaN where it has not ended.
    """

    values: pd.DataFrame
    sign: int

    def complete(self, arms: list[str], seeds: list[int], sets: list[int]) -> int:
        """How many seeds, from the first on, have ended in all of these arms and sets."""
        wanted = self.values.reindex(columns=arms)
        for n, seed in enumerate(seeds):
            if wanted.reindex([(number, seed) for number in sets]).isna().to_numpy().any():
                return n
        return len(seeds)

    def differences(
        self, weights: dict[str, float], seeds: list[int], sets: list[int], design: sequential.Design
    ) -> NDArray:
        """[n]: of each seed, the weighted sum of arms averaged over sets, in the metric's own unit."""
        if not seeds:
            return np.zeros(0)
        values = self.values.reindex([(number, seed) for seed in seeds for number in sets])
        table = values.to_numpy(float).reshape(len(seeds), len(sets), -1)  # [seeds, sets, arms]
        if design.statistic == "mean":
            table = self._with_worst(table, design.looks)
        arms = [list(values.columns).index(arm) for arm in weights]
        with np.errstate(invalid="ignore"):
            # Where both sides failed neither is worse.
            one = np.nan_to_num(table[:, :, arms] * list(weights.values()), nan=0.0, posinf=np.inf, neginf=-np.inf)
            d = np.nan_to_num(one.sum(-1), nan=0.0, posinf=np.inf, neginf=-np.inf).mean(-1)
        return np.nan_to_num(d, nan=0.0, posinf=np.inf, neginf=-np.inf)

    def _with_worst(self, table: NDArray, looks: tuple[int, ...]) -> NDArray:
        """Values [seeds, sets, arms] with failed runs as the worst value by the look that their seed came in with."""
        table, start = table.copy(), 0
        for n in looks:
            seen = table[:n][np.isfinite(table[:n])]
            new = table[start:n]
            new[np.isinf(new)] = (seen.min() if self.sign > 0 else seen.max()) if len(seen) else 0.0
            start = n
        return table


def outcomes(runs: pd.DataFrame, column: str) -> dict[Place, Outcomes]:
    """The primary metric by place; runs are rows with arm, status and teacher set.

    Raises AnalysisError where runs have not measured it: that would be no outcome, but the worst of all.
    """
    runs, sign = ended(runs).copy(), metrics.metric(column).sign
    silent = runs[_bad(runs, column) & ~failed(runs, column)]
    if len(silent):
        raise AnalysisError(
            f"{len(silent)} finished runs have no {column} ({few(silent['run'])}): a study cannot be judged by what its arms "
            "have not measured"
        )
    runs["_value"] = np.where(_bad(runs, column), -sign * np.inf, runs.get(column, np.nan)).astype(float)
    return {
        place: Outcomes(block.pivot(index=["teacher_set", "seed"], columns="arm", values="_value"), sign)
        for place, block in runs.groupby(["data", "model"], sort=True)
    }


def _bad(runs: pd.DataFrame, column: str) -> NDArray:
    """[runs] bool: not ended well, or without a finite value."""
    if not len(runs):
        return np.zeros(0, bool)
    values = runs[column].to_numpy(float) if column in runs else np.nan  # where none ended well
    return failed(runs, column) | ~np.isfinite(values)


def stand(runs: pd.DataFrame, study: Study, seeds: list[int], sets: list[int]) -> list[Standing]:
    """How every comparison stands after the looks that these seeds complete. At the last look none stays open."""
    design = design_of(study)
    found = []
    families = compared(study)
    places = outcomes(runs[runs["arm"].isin(_arms(families))], study.primary)
    for name, comparisons in families.items():
        # A family is its comparisons in all places: they share its level.
        rows = [(place, held, c) for place, held in places.items() for c in comparisons]
        data = []
        for _, held, c in rows:
            n = held.complete(list(c.weights), seeds, sets)
            n = max((look for look in design.looks if look <= n), default=0)
            data.append(held.differences(c.weights, seeds[:n], sets, design))
        found += _judge(name, rows, data, study, design)
    return found


def _judge(
    family: str, rows: list[tuple[Place, Outcomes, Comparison]], data: list[NDArray], study: Study,
    design: sequential.Design,
) -> list[Standing]:  # fmt: skip
    sign, margin = metrics.metric(study.primary).sign, study.margins.get(study.primary)
    m, passed = len(rows), sum(look <= max(map(len, data), default=0) for look in design.looks)
    levels = study.alpha / np.arange(1, m + 1)
    different = np.zeros((m, m, passed), bool)
    equivalent = np.zeros_like(different) if margin else None
    for i, d in enumerate(data):
        reached = sum(look <= len(d) for look in design.looks)
        if reached:
            different[:, i, :reached] = sequential.crossings(d, design, levels)
            different[:, i, reached:] = different[:, i, reached - 1 : reached]
            if margin:
                equivalent[:, i, :reached] = sequential.equivalences(d, margin, design, levels)
                equivalent[:, i, reached:] = equivalent[:, i, reached - 1 : reached]
    outcome, look = sequential.settle(different, equivalent)
    p, same = statistics.holm_either(
        [sequential.sequential_p(d, design) if len(d) else 1.0 for d in data],
        [_equivalence_p(d, margin, design) for d in data],
    )
    fallen = int((outcome == 1).sum()) if margin is None else 0
    level = study.alpha / max(1, m - fallen)
    standings = []
    for i, ((data_name, model), _, c) in enumerate(rows):
        d, kind = data[i], int(outcome[i])
        toward = _statistic(d, design) if len(d) else math.nan
        verdict = (
            NAMES[kind * (_direction(d, different[:, i, : look[i] + 1], design) * sign if kind == 1 else 1)]
            if kind
            else "open"
        )
        if verdict == "open" and len(d) == design.most:
            verdict = "inconclusive"
        low, high = sequential.repeated_interval(d, design, study.alpha) if len(d) else (-math.inf, math.inf)
        walked = sequential.walk(d, design, level) if len(d) else None
        standings.append(
            {
                "family": family, "data": data_name, "model": model, "variant": c.variant, "reference": c.reference,
                "weights": dict(c.weights), "n": len(d), "differences": [as_json(x) for x in d],
                "estimate": as_json(d.mean()) if len(d) else None,
                "level": level,
                "spent": float(sequential.spent(level, len(d) / design.most, design.spending)) if len(d) else 0.0,
                # Where no whole path may go there is no boundary yet.
                "boundary": as_json(walked.boundary[0, -1]) if walked and walked.nominal[0, -1] else None,
                "statistic": as_json(toward), "p": float(p[i]), "p_equivalence": float(same[i]) if margin else None, "low": as_json(low), "high": as_json(high),
                "verdict": verdict, "decided": int(look[i]) + 1 if kind else None,
            }
        )  # fmt: skip
    return standings


def _direction(d: NDArray, crossed: NDArray, design: sequential.Design) -> int:
    """Which way the difference was found, 1 or -1: at the first look that crossed the strictest level which any did.

    crossed: [levels, looks], up to the look that decided. Seeds that came later, for the sake of other comparisons, do
    not turn what was found.
    """
    strictest = crossed[crossed.any(-1)][-1]
    return int(np.sign(_statistic(d[: design.looks[int(strictest.argmax())]], design)))


def _equivalence_p(d: NDArray, margin: float | None, design: sequential.Design) -> float:
    if not margin:
        return math.nan
    return sequential.sequential_equivalence_p(d, margin, design) if len(d) else 1.0


def _statistic(d: NDArray, design: sequential.Design) -> float:
    return float(sequential.signed_ranks(d).sum() if design.statistic == "rank" else d.mean())


def open_arms(standings: list[Standing]) -> set[tuple[str, str, str]]:
    """(data, model, arm) of every arm that a comparison without a verdict needs."""
    return {(s["data"], s["model"], arm) for s in standings if s["verdict"] == "open" for arm in s["weights"]}


def changed(runs: pd.DataFrame, study: Study, look: Look) -> str | None:
    """The first comparison of a look that these runs do not repeat, in words; None where they repeat all of it."""

    def by_name(standings: list[Standing]) -> dict[tuple[str, ...], Any]:
        keys = ("family", "data", "model", "variant", "reference")
        return {tuple(s[key] for key in keys): s["differences"] for s in standings}

    again = by_name(stand(runs[runs["seed"].isin(look["seeds"])], study, look["seeds"], look["sets"]))
    before = by_name(look["standings"])
    other = next((name for name in before | again if before.get(name) != again.get(name)), None)
    return other and " and ".join(filter(None, other[-2:]))


def _rules(study: Study) -> dict[str, Any]:
    """What a look says of how it was taken."""
    sequential = study.sequential
    return {
        "primary": study.primary, "alpha": study.alpha, "looks": list(sequential.looks), "spending": sequential.spending,
        "statistic": sequential.statistic,
    }  # fmt: skip


def other_rules(study: Study, look: Look) -> str | None:
    """Where a look was taken otherwise than the study declares, in words; None where it was not."""
    wanted = _rules(study)
    return next((f"{key} {look[key]}, not {value}" for key, value in wanted.items() if look[key] != value), None)


def strangers(runs: pd.DataFrame, study: Study) -> list[str]:
    """The compared runs whose own record does not declare this study."""
    return outside(runs[runs["arm"].isin(_arms(compared(study)))], study)


def _arms(families: dict[str, list[Comparison]]) -> set[str]:
    return {arm for comparisons in families.values() for c in comparisons for arm in c.weights}


def entry(
    runs: pd.DataFrame, study: Study, seeds: list[int], sets: list[int], number: int, declared: str,
    previous: str | None, taken: str,
) -> dict[str, Any]:  # fmt: skip
    """A look as `analysis.records.looks` keeps it, not yet sealed. seeds: those that count at this look."""
    counted = ended(runs[runs["seed"].isin(seeds)])
    worst = counted[_bad(counted, study.primary)]
    return {
        "format": 1, "look": number, "taken": taken, "declared": declared, **_rules(study),
        "seeds": seeds, "sets": sets, "runs": len(counted),
        "failed": sorted(worst["run"]), "standings": stand(runs, study, seeds, sets), "previous": previous,
    }  # fmt: skip
