"""The regression gate: a frozen baseline, and whether new runs are non-inferior to it.

Per variant and metric, on runs paired by (data, model, teacher set, seed) with differences signed so that
more is better:
    pass        the mean difference lies above -margin (one-sided test at alpha), or the runs are the very same
    regression  not shown to be above -margin, and below 0 (one-sided test at alpha)
    unknown     neither: too few runs to tell; the number that is missing is estimated
One-sided tests are the study's deciding test; each variant is judged by itself, and all its metrics must
pass. Cost is compared as a ratio of the median over pairs, where a comparison is fair (see `_cost`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import metrics, power, statistics
from analysis.records import AnalysisError
from analysis.study import Study

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
PASS, REGRESSION, UNKNOWN = "pass", "regression", "not enough runs"
EXIT = {PASS: 0, REGRESSION: 1, UNKNOWN: 2}
KEEP = ("run", "data", "model", "arm", "method", "teacher_set", "seed", "revision", "device", "host",
        "data_fingerprint", "teachers", "images_per_s", "device_s", "peak_memory_bytes",
        "parameters", "flops")  # fmt: skip
PAIR = ["data", "model", "teacher_set", "seed"]
COST_MARGINS = {"speed": 0.30, "memory": 0.20}  # relative; speed is noisy on shared machines


def freeze(runs: pd.DataFrame, study: Study, path: str | Path) -> dict[str, Any]:
    """Write the done runs' metrics and costs to a baseline file (JSON), and return its content."""
    from analysis.mixtures import recipe
    from harness.record import write_atomically

    done = runs[runs["status"] == "done"]
    if not len(done):
        raise AnalysisError("no finished runs to freeze")
    names = [m.column for m in metrics.present(list(done.columns))]
    rows = []
    for row in done.to_dict("records"):
        kept = {name: _plain(row[name]) for name in (*KEEP, *names) if name in row}
        rows.append(kept | {"recipe": recipe(row["config"], study.factors), "options": _options(row["config"])})
    content = {
        "format": FORMAT,
        "frozen": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "alpha": study.alpha,
        "test": study.test,
        "margins": {name: value for name, value in study.margins.items() if name in names},
        "runs": rows,
    }
    write_atomically(Path(path), json.dumps(content, indent=1) + "\n")
    return content


def _options(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (config.get("method") or {}).items() if name != "name"}


def _plain(value: Any) -> Any:
    """A value that JSON has: numpy numbers as Python's, NaN as null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_baseline(path: str | Path) -> dict[str, Any]:
    """The content of a baseline file. Raises AnalysisError where it is not one."""
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise AnalysisError(f"no such baseline file: {path} (write one with `python -m analysis freeze`)") from error
    except json.JSONDecodeError as error:
        raise AnalysisError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.get("runs"):
        raise AnalysisError(f"{path} is not a baseline file of format {FORMAT}")
    return content


@dataclass(frozen=True)
class Check:
    """One variant on one metric or cost: verdict, numbers, and how many runs are missing to tell."""

    variant: str
    reference: str
    metric: str
    verdict: str
    n: int
    difference: float = math.nan  # new minus old, in the metric's unit; for costs a ratio
    low: float = math.nan
    high: float = math.nan
    margin: float = math.nan
    missing: int = 0
    words: str = ""
    remedy: str = ""  # where more runs of the variant would not help
    note: str = ""  # where the two sides differ in more than the variant


def check(
    d: np.ndarray,
    column: str,
    margin: float,
    alpha: float,
    test: str,
    variant: str = "",
    reference: str = "",
    same: bool = False,
) -> Check:
    """Judge paired differences, new minus old, one per seed [n].

    same: the runs agree in everything that was measured, which needs no statistics.
    """
    d = np.asarray(d, float)
    m, n = metrics.metric(column), len(d)
    goodness = m.sign * d
    fewest = statistics.pairs_for_floor(alpha, test=test, sides=1)
    names = {"variant": variant, "reference": reference, "metric": column, "n": n, "margin": margin}
    if n:
        t = statistics.paired_t(d, confidence=1 - 2 * alpha)
        names |= {"difference": float(d.mean()), "low": float(t.low), "high": float(t.high)}
    if same:
        return Check(**names, verdict=PASS, words="nothing changed")
    if n < max(fewest, 3):
        missing = max(fewest, 3) - n
        text = f"{n} paired seeds cannot settle it at alpha = {alpha:g}; at least {missing} more are needed"
        return Check(**names, verdict=UNKNOWN, missing=missing, words=text)
    p_pass = float(statistics.noninferiority(goodness, margin, test))
    p_worse = float(statistics.decide(goodness, test, "less"))
    shown = f"margin {m.text(margin)}"
    # Differences that are all 0 leave a t test no spread.
    if p_pass <= alpha or not np.any(d):
        return Check(**names, verdict=PASS, words=f"not worse by more than the {shown}")
    if p_worse <= alpha:
        return Check(**names, verdict=REGRESSION, words=f"worse, and not shown to be within the {shown}")
    room = margin + min(0.0, goodness.mean())
    sd = float(goodness.std(ddof=1))
    needed = power.pairs_needed(sd, room, 2 * alpha, test) if room > 0 else None
    missing = max(1, needed - n) if needed else 0
    more = f"about {missing} more are needed" if missing else "the estimate lies at or beyond the margin: more runs"
    return Check(**names, verdict=UNKNOWN, missing=missing, words=f"{n} paired seeds cannot settle it; {more}")


def regress(
    baseline: dict[str, Any],
    runs: pd.DataFrame,
    margins: dict[str, float] | None = None,
    reference: str | None = None,
    cost: dict[str, float] | None = COST_MARGINS,
    alpha: float | None = None,
    test: str | None = None,
    allow_recipe: bool = False,
) -> list[Check]:
    """Judge every variant among new runs against the frozen ones.

    A variant that the baseline knows is compared with its own frozen runs, a new one with the frozen
    `reference`.
    margins: metric -> largest loss tolerated; default the baseline's, else metrics.GATE_MARGINS. cost: None
    to skip. Raises AnalysisError where a new variant comes without a reference, or where recipes differ
    (unless allowed).
    """
    import pandas as pd

    old = pd.DataFrame(baseline["runs"])
    alpha = baseline["alpha"] if alpha is None else alpha
    test = test or baseline["test"]
    chosen = margins or baseline["margins"] or metrics.GATE_MARGINS
    done = runs[runs["status"] == "done"]
    known_arms = set(old["arm"])
    if reference is not None and reference not in known_arms:
        raise AnalysisError(f"the baseline has no runs of {reference!r}: it has {', '.join(sorted(known_arms))}")
    checks: list[Check] = []
    frozen = {arm: (part["method"].iloc[0], part["options"].iloc[0]) for arm, part in old.groupby("arm")}
    seen = set()
    for arm, part in runs.groupby("arm", sort=True):
        other, changed = _counterpart(arm, part["method"].iloc[0], _options(part["config"].iloc[0]), frozen)
        other = other or reference
        seen.add(other)
        if other is None:
            raise AnalysisError(f"{arm!r} is not in the baseline: name what to compare it with by --reference")
        mine, theirs = done[done["arm"] == arm], old[old["arm"] == other]
        if not allow_recipe:
            _same_recipe(mine, theirs, arm)
        joined = theirs.merge(mine, on=PAIR, suffixes=("_old", "_new"))
        blocks = list(joined.groupby(["data", "model"])) or [((None, None), joined)]
        for (data, model), pairs in blocks:
            known = theirs[(theirs["data"] == data) & (theirs["model"] == model)] if data else theirs
            note = _strangers(pairs, arm, other)
            for column, margin in chosen.items():
                one = _check_pairs(pairs, column, margin, alpha, test, arm, other)
                one = replace(one, words=one.words + changed, note=note)
                one = _short(one, known["seed"].nunique())
                checks.append(one if len(blocks) == 1 else replace(one, variant=f"{arm} on {data} x {model}"))
        if cost and len(joined):
            checks += _cost(arm, other, mine, joined, cost)
    lost = known_arms - seen
    checks += [Check(arm, arm, "", UNKNOWN, 0, words="no new runs (not judged)") for arm in sorted(lost)]
    return checks


def _check_pairs(
    pairs: pd.DataFrame, column: str, margin: float, alpha: float, test: str, arm: str, other: str
) -> Check:
    """Judge a metric on the matched runs of one (data, model)."""
    if f"{column}_old" not in pairs:
        return Check(arm, other, column, UNKNOWN, 0, margin=margin, words="not measured on both sides")
    d = (pairs[f"{column}_new"].astype(float) - pairs[f"{column}_old"].astype(float)).groupby(pairs["seed"]).mean()
    measured = [name for name in {column, *metrics.MAIN} if f"{name}_old" in pairs]  # accuracies alone may tie
    same = all((pairs[f"{name}_new"] == pairs[f"{name}_old"]).all() for name in measured)
    return check(d.dropna().to_numpy(), column, margin, alpha, test, arm, other, same and len(d) > 0)


def _short(one: Check, frozen: int) -> Check:
    """Says what to do where the baseline's seeds are too few: others of the variant would find no partner."""
    if one.verdict != UNKNOWN or frozen >= one.n + max(one.missing, 1):
        return one
    wanted = str(one.n + one.missing) if one.missing else "more"
    return replace(one, remedy=f"the baseline has {frozen} of {one.reference}: run {wanted} of it and freeze again")


def _strangers(pairs: pd.DataFrame, arm: str, other: str) -> str:
    """What else than the variant differs between matched runs. It is no reason to refuse: a baseline outlives its
    teachers, which a newer harness trains again.
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


def _same_recipe(mine: pd.DataFrame, theirs: pd.DataFrame, arm: str) -> None:
    from analysis.mixtures import decides, recipe
    from analysis.records import Mixture

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
                f"run {run} of {arm} was trained otherwise than the baseline ({what}); --allow-mixed "
                "recipe compares anyway"
            )


def _cost(arm: str, other: str, mine: pd.DataFrame, joined: pd.DataFrame, margins: dict[str, float]) -> list[Check]:
    """Speed and memory as ratios new / old, where both sides ran on the same kind of device and host.

    Between hosts, throughput tells more of the machines than of the code, so it is not compared; neither is
    memory on a CPU, where the peak is that of a process with all the runs it made.
    """
    found = []
    same = joined[joined["device_old"] == joined["device_new"]]
    here = same[same["host_old"] == same["host_new"]] if "host_old" in same else same
    for name, column, rows, sign in (
        ("speed", "images_per_s", here, 1),
        ("memory", "peak_memory_bytes", same[same["device_new"] != "cpu"], -1),
    ):
        if name not in margins or f"{column}_old" not in joined:
            continue
        ratio = (rows[f"{column}_new"] / rows[f"{column}_old"]).dropna()
        if not len(ratio):
            continue
        value = float(ratio.median())
        bad = value < 1 - margins[name] if sign > 0 else value > 1 + margins[name]
        text = f"{value:.2f} of the baseline's {name}, margin {margins[name]:.0%}"
        found.append(
            Check(
                arm,
                other,
                name,
                REGRESSION if bad else PASS,
                len(ratio),
                value,
                margin=margins[name],
                words=text,
            )
        )
    return found


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


def as_table(checks: list[Check], alpha: float) -> Any:
    """The checks as a Table; alpha: the level at which they were judged."""
    from analysis.tables import Table

    table = Table(
        "Regression gate",
        ["variant", "against", "metric", "n", f"difference [{100 * (1 - 2 * alpha):g} % CI]", "verdict", "why"],
        [],
        [],
    )
    for c in checks:
        if c.metric in COST_MARGINS:
            label, shown = c.metric, f"x {c.difference:.2f}"
        elif c.metric:
            m = metrics.metric(c.metric)
            label, shown = m.label, "-" if math.isnan(c.difference) else m.text(c.difference, True)
            if not math.isnan(c.low):
                shown += f" [{m.text(c.low, True)}, {m.text(c.high, True)}]"
        else:
            label, shown = "", ""
        why = "; ".join(filter(None, (c.words, c.remedy)))
        table.add([c.variant + " *" * bool(c.note), c.reference, label, str(c.n), shown, c.verdict, why])
    table.notes += dict.fromkeys(c.note for c in checks if c.note)
    return table
