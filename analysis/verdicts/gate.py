"""The regression gate: whether new runs are non-inferior to a frozen baseline.

Runs are paired by (data, model, teacher set, seed). Each variant is judged by itself, and all its metrics must pass
(see `check`); tests are one-sided, by the study's deciding test. A regression must stand against all that is judged
together. Cost is compared where that is fair (see `cost`).

To follow the advice ("k more seeds") is to look again. So a look at n of the N seeds that the baseline has may spend the
share of alpha that Pocock's spending has by n / N, less what looks at fewer seeds have spent: all looks together hold
alpha, and who waits for all N seeds has the whole of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.inference.sequential import spent
from analysis.records import limits, metrics
from analysis.records.baseline import Baseline
from analysis.records.errors import AnalysisError, Mixture
from analysis.records.mixtures import decides, recipe
from analysis.records.options import of_method
from analysis.records.outcomes import ended
from analysis.records.pairing import incomplete
from analysis.records.texts import few
from analysis.records.uses import digest_of_runs
from analysis.verdicts.check import (
    FAILED,
    PASS,
    REGRESSION,
    UNKNOWN,
    Check,
    check,
    judge_together,
    survivors,
    unchanged,
)
from analysis.verdicts.cost import COST_MARGINS, compare_cost
from harness.store.identity import LATER
from harness.store.record import digest_of

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.uses import Use

EXIT = {PASS: 0, REGRESSION: 1, FAILED: 1, UNKNOWN: 2}
PAIR = ["data", "model", "teacher_set", "seed"]


def regress(
    baseline: Baseline,
    runs: pd.DataFrame,
    margins: dict[str, float] | None = None,
    reference: str | None = None,
    cost: dict[str, float] | None = COST_MARGINS,
    alpha: float | None = None,
    allow_recipe: bool = False,
    uses: Iterable[Use] = (),
) -> list[Check]:
    """Judge every variant among new runs against the frozen ones.

    A variant that the baseline knows is compared with its own frozen runs, a new one with the frozen `reference`.

    margins: metric -> largest loss tolerated; default the baseline's, else metrics.GATE_MARGINS. cost: None to skip.
    uses: what this baseline was used for before (`analysis.records.uses`).
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
    costs: list[Check] = []
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
        # Those that did not end well come along: their partners did.
        joined = theirs.merge(ended(runs[runs["arm"] == arm]), on=PAIR, suffixes=("_old", "_new"))
        for one in _qualities(arm, other, theirs, joined, chosen, alpha, baseline["test"], list(uses)):
            checks.append(replace(one, words=one.words + changed))
        joined = joined[joined["status"] == "done"]
        if cost and len(joined):
            costs += compare_cost(arm, other, joined, cost)
    checks = judge_together(checks, alpha) + costs
    return checks + [Check(arm, arm, "", UNKNOWN, 0, words="no new runs (not judged)") for arm in sorted(known - seen)]


def _qualities(
    arm: str,
    other: str,
    theirs: pd.DataFrame,
    joined: pd.DataFrame,
    margins: Mapping[str, float],
    alpha: float,
    test: str,
    uses: list[Use],
) -> Iterator[Check]:
    """The checks of one arm: on every (data, model) that both sides have, and every metric with a margin."""
    blocks = list(joined.groupby(["data", "model"])) or [((None, None), joined)]
    places = set(theirs.groupby(["data", "model"]).groups)
    for (data, model), pairs in blocks:
        frozen = theirs[(theirs["data"] == data) & (theirs["model"] == model)] if data else theirs
        left, subject = incomplete(pairs), _subject(pairs, arm)
        note = " ".join(filter(None, (_strangers(pairs, arm, other), _lacking(left, arm))))
        frozen = frozen[frozen["teacher_set"].isin(pairs["teacher_set"])] if data else frozen
        whole, n = frozen["seed"].nunique() - len(incomplete(frozen)), pairs["seed"].nunique() - len(left)
        level = level_of_look(alpha, n, whole, [use["seeds"] for use in uses if use["subject"] == subject])
        for column, margin in margins.items():
            one = _check_pairs(pairs, column, margin, alpha, test, arm, other, level)
            one = _short(replace(one, note=note, subject=subject, seeds=n), whole)
            if level < alpha and np.isfinite(one.p_worse):
                one = replace(one, words=f"{one.words} (level {level:.2g}: a look at {n} of {whole} seeds)")
            yield one if len(places) == 1 or not data else replace(one, variant=f"{arm} on {data} x {model}")
    for data, model in sorted(places - set(joined.groupby(["data", "model"]).groups)) if len(joined) else ():
        yield Check(f"{arm} on {data} x {model}", other, "", UNKNOWN, 0, words="no new runs (not judged)")


def _check_pairs(
    pairs: pd.DataFrame, column: str, margin: float, alpha: float, test: str, arm: str, other: str, level: float
) -> Check:
    """Judge a metric on the matched runs of one (data, model)."""
    if f"{column}_old" not in pairs:
        return Check(arm, other, column, UNKNOWN, 0, margin=margin, words="not measured on both sides")
    old, new = pairs[f"{column}_old"].astype(float), pairs[f"{column}_new"].astype(float)
    lost = np.isfinite(old) & ((pairs["status"] != "done") | ~np.isfinite(new))
    # A seed without all teacher sets would be an average over other teachers than the rest.
    left = {*incomplete(pairs), *pairs.loc[lost, "seed"]}
    pairs = pairs[(pairs["status"] == "done") & ~pairs["seed"].isin(left)]
    d = (new - old)[pairs.index].groupby(pairs["seed"]).mean()
    measured = [name for name in {column, *metrics.MAIN} if f"{name}_old" in pairs]  # accuracies alone may tie
    same = all((pairs[f"{name}_new"] == pairs[f"{name}_old"]).all() for name in measured)
    d = d.dropna().to_numpy()
    if same and len(pairs) and not lost.any():
        return unchanged(d, column, margin, alpha, arm, other)
    return survivors(check(d, column, margin, alpha, test, arm, other, level), int(lost.sum()), len(old))


def _lacking(left: dict[int, str], arm: str) -> str:
    """Which seeds are in no test for want of a teacher set, in words."""
    if not left:
        return ""
    return f"* {arm}: left out of the tests, {few([f'seed {seed}: {lacks}' for seed, lacks in left.items()])}."


def level_of_look(alpha: float, n: int, whole: int, earlier: Iterable[int] = ()) -> float:
    """The level of a look at n of a baseline's `whole` seeds, after earlier looks at so many."""
    if not n:
        return alpha
    before = max((seeds for seeds in earlier if seeds < n), default=0)
    return float(spent(alpha, min(n / whole, 1.0), "pocock") - spent(alpha, before / whole, "pocock"))


def _subject(pairs: pd.DataFrame, arm: str) -> str:
    """A digest of what is judged: the variant, its options and its code, on a data set and a network."""
    if not len(pairs):
        return ""
    first = pairs.iloc[0]
    code = sorted({str(code) for code in pairs["code" if "code" in pairs else "revision_new"].dropna()})
    return digest_of({"arm": arm, "options": of_method(first["config"]), "place": list(first[PAIR[:2]]), "code": code})


def judged(checks: list[Check], runs: pd.DataFrame) -> list[tuple[str, int, list[str]]]:
    """What the gate has looked at, with seeds enough for a test: (subject, seeds, runs) of each variant, for
    `analysis.records.uses`.
    """
    names = [str(run) for run in runs["run"]]
    return [
        (subject, n, names)
        for subject, n in {c.subject: c.seeds for c in checks if c.subject and np.isfinite(c.p_worse)}.items()
    ]


def say_age(baseline: Baseline, uses: list[Use], runs: pd.DataFrame) -> str:
    """How old a baseline is, and how often it was used for other runs than these."""
    frozen = datetime.fromisoformat(baseline["frozen"])
    frozen = frozen if frozen.tzinfo else frozen.replace(tzinfo=timezone.utc)
    days = max(0, (datetime.now(timezone.utc) - frozen).days)
    age = f"baseline frozen {baseline['frozen'][:10]}, {days} day{'s' * (days != 1)} ago"
    if not (times := len({use["runs"] for use in uses} - {digest_of_runs(runs["run"])})):
        return f"{age}, not used before by what stands beside it"
    return (
        f"{age}, used for {times} other set{'s' * (times != 1)} of runs: the luck of its own seeds is the same in all of "
        "these verdicts"
    )


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
    columns = {"teachers": "teachers", "weights of teachers": "teacher_weights", "data": "data_fingerprint"}
    for what, column in columns.items():
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
        # A baseline may be older than an option, or than the knowledge that it decides nothing. What is absent where it
        # is None: options that came later, and the teachers' own where they are the student's.
        absent = {
            k for k in {*new, *frozen} if f"{k}.".startswith((*(f"{name}." for name in LATER), "teachers.train."))
        }
        both = (new.keys() & frozen.keys()) | absent
        varying = [k for k in sorted(both) if decides(k) and new.get(k) != frozen.get(k)]
        if varying:
            what = ", ".join(f"{k}: {frozen.get(k)} -> {new.get(k)}" for k in varying)
            raise Mixture(
                f"run {run} of {arm} was trained otherwise than the baseline ({what}); "
                "--allow-mixed recipe compares anyway"
            )


def outcome(checks: list[Check]) -> str:
    """The whole gate: regression before failed runs before unknown before pass; variants without new runs do not count."""
    judged = [c.verdict for c in checks if c.metric]
    if not judged:
        return UNKNOWN
    return next(v for v in (REGRESSION, FAILED, UNKNOWN, PASS) if v in judged)


def advice(checks: list[Check]) -> str:
    """What follows the verdict of a gate that cannot tell, or that cannot pass; empty where no number helps."""
    if outcome(checks) == FAILED:
        failed = {c.variant: c.failed for c in checks if c.failed}
        return (
            f": {sum(failed.values())} runs of {', '.join(failed)}; mend them, no number of other runs passes over them"
        )
    if outcome(checks) != UNKNOWN:
        return ""
    short = max(checks, key=lambda c: c.missing)
    if not short.missing:
        return ""
    text = f": {short.missing} more paired seeds are needed" + (f"; {short.remedy}" if short.remedy else "")
    if short.remedy:
        return text + ", then judge by seeds that no verdict has seen: to add to these is to look twice"
    return (
        text + " (a further look, at what this one has left of alpha; with all of the baseline's seeds none is better)"
    )
