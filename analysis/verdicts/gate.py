"""The regression gate: whether new runs are non-inferior to a frozen baseline.

Runs are paired by (data, model, teacher set, seed). Each variant is judged by itself, and all its metrics must pass
(see `check`); tests are one-sided, by the study's deciding test. Cost is compared where that is fair (see `cost`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from analysis.records import limits, metrics
from analysis.records.baseline import Baseline
from analysis.records.errors import AnalysisError, Mixture
from analysis.records.mixtures import decides, recipe
from analysis.records.options import of_method
from analysis.verdicts.check import PASS, REGRESSION, UNKNOWN, Check, check, unchanged
from analysis.verdicts.cost import COST_MARGINS, compare_cost

if TYPE_CHECKING:
    import pandas as pd

EXIT = {PASS: 0, REGRESSION: 1, UNKNOWN: 2}
PAIR = ["data", "model", "teacher_set", "seed"]


def regress(
    baseline: Baseline,
    runs: pd.DataFrame,
    margins: dict[str, float] | None = None,
    reference: str | None = None,
    cost: dict[str, float] | None = COST_MARGINS,
    alpha: float | None = None,
    allow_recipe: bool = False,
) -> list[Check]:
    """Judge every variant among new runs against the frozen ones.

    A variant that the baseline knows is compared with its own frozen runs, a new one with the frozen `reference`.

    margins: metric -> largest loss tolerated; default the baseline's, else metrics.GATE_MARGINS. cost: None to skip.
    Raises AnalysisError where a new variant comes without a reference or a level, margin or tolerance is none, Mixture
    where recipes differ (unless allowed).
    """
    import pandas as pd

    old = pd.DataFrame(baseline["runs"])
    alpha = limits.alpha(baseline["alpha"] if alpha is None else alpha)
    chosen = margins or baseline["margins"] or metrics.GATE_MARGINS
    chosen = {column: limits.margin(column, value) for column, value in chosen.items()}
    cost = {name: limits.tolerance(name, value) for name, value in (cost or {}).items()}
    done = runs[runs["status"] == "done"]
    known = set(old["arm"])
    if reference is not None and reference not in known:
        raise AnalysisError(f"the baseline has no runs of {reference!r}: it has {', '.join(sorted(known))}")
    checks: list[Check] = []
    frozen = {arm: (part["method"].iloc[0], part["options"].iloc[0]) for arm, part in old.groupby("arm")}
    seen = set()
    for arm, part in runs.groupby("arm", sort=True):
        other, changed = _counterpart(arm, part["method"].iloc[0], of_method(part["config"].iloc[0]), frozen)
        other = other or reference
        if other is None:
            raise AnalysisError(f"{arm!r} is not in the baseline: name what to compare it with by --reference")
        seen.add(other)
        mine, theirs = done[done["arm"] == arm], old[old["arm"] == other]
        if not allow_recipe:
            _refuse_other_recipe(mine, theirs, arm)
        joined = theirs.merge(mine, on=PAIR, suffixes=("_old", "_new"))
        for one in _qualities(arm, other, theirs, joined, chosen, alpha, baseline["test"]):
            checks.append(replace(one, words=one.words + changed))
        if cost and len(joined):
            checks += compare_cost(arm, other, joined, cost)
    return checks + [Check(arm, arm, "", UNKNOWN, 0, words="no new runs (not judged)") for arm in sorted(known - seen)]


def _qualities(
    arm: str,
    other: str,
    theirs: pd.DataFrame,
    joined: pd.DataFrame,
    margins: Mapping[str, float],
    alpha: float,
    test: str,
) -> Iterator[Check]:
    """The checks of one arm: on every (data, model) that both sides have, and every metric with a margin."""
    blocks = list(joined.groupby(["data", "model"])) or [((None, None), joined)]
    for (data, model), pairs in blocks:
        frozen = theirs[(theirs["data"] == data) & (theirs["model"] == model)] if data else theirs
        note = _strangers(pairs, arm, other)
        for column, margin in margins.items():
            one = _check_pairs(pairs, column, margin, alpha, test, arm, other)
            one = _short(replace(one, note=note), frozen["seed"].nunique())
            yield one if len(blocks) == 1 else replace(one, variant=f"{arm} on {data} x {model}")


def _check_pairs(
    pairs: pd.DataFrame, column: str, margin: float, alpha: float, test: str, arm: str, other: str
) -> Check:
    """Judge a metric on the matched runs of one (data, model)."""
    if f"{column}_old" not in pairs:
        return Check(arm, other, column, UNKNOWN, 0, margin=margin, words="not measured on both sides")
    d = (pairs[f"{column}_new"].astype(float) - pairs[f"{column}_old"].astype(float)).groupby(pairs["seed"]).mean()
    measured = [name for name in {column, *metrics.MAIN} if f"{name}_old" in pairs]  # accuracies alone may tie
    same = all((pairs[f"{name}_new"] == pairs[f"{name}_old"]).all() for name in measured)
    d = d.dropna().to_numpy()
    if same and len(pairs):
        return unchanged(d, column, margin, alpha, arm, other)
    return check(d, column, margin, alpha, test, arm, other)


def _short(one: Check, frozen: int) -> Check:
    """The check, with what to do where the baseline's seeds are too few: more of the variant's find no partner."""
    if one.verdict != UNKNOWN or frozen >= one.n + max(one.missing, 1):
        return one
    wanted = str(one.n + one.missing) if one.missing else "more"
    return replace(one, remedy=f"the baseline has {frozen} of {one.reference}: run {wanted} of it and freeze again")


def _strangers(pairs: pd.DataFrame, arm: str, other: str) -> str:
    """What else than the variant differs between matched runs, in words.

    It is no reason to refuse: a baseline outlives its teachers, which a newer harness trains again.
    """
    found = []
    for what, column in (("teachers", "teachers"), ("data", "data_fingerprint")):
        both = pairs[[f"{column}_old", f"{column}_new"]].dropna()
        # A method of one teacher may list the first of its set alone.
        names = [zip(old.split(","), new.split(","), strict=False) for old, new in both.itertuples(index=False)]
        found += [f"other {what} ({a} -> {b})" for row in names for a, b in row if a != b][:1]
    if not found:
        return ""
    return f"* {arm} against {other}: {' and '.join(found)}; the differences are not those of the variant alone."


def _counterpart(
    arm: str, method: str, options: dict[str, Any], frozen: dict[str, tuple[str, dict[str, Any]]]
) -> tuple[str | None, str]:
    """The frozen arm that a new arm continues, and what changed in its options, in words.

    Names of arms depend on what else was loaded, so equal options come first; then the name.
    """
    for other in sorted(frozen, key=lambda name: name != arm):
        if frozen[other] == (method, options):
            return other, ""
    if arm not in frozen:
        return None, ""
    before = frozen[arm][1]
    keys = [k for k in sorted({*before, *options}) if before.get(k) != options.get(k)]
    return arm, "".join(f"; {k}: {before.get(k)} -> {options.get(k)}" for k in keys)


def _refuse_other_recipe(mine: pd.DataFrame, theirs: pd.DataFrame, arm: str) -> None:
    old = {(row.data, row.model): row.recipe for row in theirs.itertuples()}
    for row in mine.itertuples():
        new, frozen, run = recipe(row.config), old.get((row.data, row.model), {}), row.run
        # A baseline may be older than an option, or than the knowledge that it decides nothing; the teachers' own
        # options are absent where they are the student's.
        both = (new.keys() & frozen.keys()) | {k for k in {*new, *frozen} if k.startswith("teachers.train.")}
        varying = [k for k in sorted(both) if decides(k) and new.get(k) != frozen.get(k)]
        if varying:
            what = ", ".join(f"{k}: {frozen.get(k)} -> {new.get(k)}" for k in varying)
            raise Mixture(
                f"run {run} of {arm} was trained otherwise than the baseline ({what}); "
                "--allow-mixed recipe compares anyway"
            )


def outcome(checks: list[Check]) -> str:
    """The whole gate: regression before unknown before pass; variants without new runs do not count."""
    judged = [c.verdict for c in checks if c.metric]
    if not judged:
        return UNKNOWN
    return next(v for v in (REGRESSION, UNKNOWN, PASS) if v in judged)


def advice(checks: list[Check]) -> str:
    """What a gate that cannot tell asks for, to follow its verdict; empty where no number helps."""
    short = max(checks, key=lambda c: c.missing)
    if not short.missing:
        return ""
    return f": {short.missing} more paired seeds are needed" + (f"; {short.remedy}" if short.remedy else "")
