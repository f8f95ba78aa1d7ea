"""Method x metric: a table per data set x network, and one across them on the primary metric."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from analysis.inference import statistics
from analysis.inference.outcomes import share
from analysis.inference.ranks import interquartile_mean
from analysis.records import metrics
from analysis.records.arms import present
from analysis.records.options import value_at
from analysis.records.outcomes import collapsed, ended, failed
from analysis.records.pairing import pair
from analysis.records.study import Study
from analysis.records.texts import plain
from analysis.report.order import blocks_of, order_of
from analysis.report.tables.table import Table, best, mean_sd
from analysis.verdicts.notation import probability
from analysis.verdicts.outcomes import shown, worst
from analysis.verdicts.words import difference, typical

if TYPE_CHECKING:
    import pandas as pd

    from analysis.verdicts.contrast import Contrast

ALIKE = "~"  # may be the best
TAUGHT = {"one teacher": "teacher", "teacher ensemble": "ensemble"}  # rows of what students learn from, and its columns


def ablation(
    runs: pd.DataFrame, study: Study, found: list[Contrast] | None = None, columns: tuple[str, ...] | None = None
) -> list[Table]:
    """Method x metric, one table per data set x network.

    A cell: mean ± sd over all finished runs; the best in bold, and ~ on those that may be the best as well (see
    `may_be_best`; exploratory). On the primary metric beside it the typical run (interquartile mean, a failed run the
    worst), how many collapsed, the worst run; and the differences to the baseline, of the mean and of the typical run,
    with the verdict of the study's own family where `found` has it.
    """
    result = []
    for name, block in blocks_of(runs):
        measured = [m.column for m in metrics.present(list(block.columns), columns) if m.column in block]
        measured = [column for column in measured if block[column].notna().any()]
        main = [column for column in measured if columns or column in (*metrics.MAIN, study.primary)]
        result.append(_ablation(name, block, study, found or [], main))
        extra = [column for column in measured if column not in main]
        if extra:
            result.append(_ablation(f"{name}: further measures", block, study, None, extra))
    return result


def _ablation(name: str, block: pd.DataFrame, study: Study, found: list[Contrast] | None, columns: list[str]) -> Table:
    done = block[block["status"] == "done"]
    study = study.complete(present(done))
    chosen = [metrics.metric(column) for column in columns]
    primary = metrics.metric(study.primary)
    paired = (
        [f"typical {primary.label}", f"worst {primary.label}", "collapsed [95 % CI]", "typical - baseline [95 % CI]", "rank p",
         f"{primary.label} - baseline [95 % CI]", "p", "verdict"]
        if found is not None else []
    )  # fmt: skip
    table = Table(name, ["arm", "n", *(m.label for m in chosen), *paired])
    _references(table, done, chosen, study)
    _published(table, done, chosen, study)
    first = len(table.rows)
    costly = passes_of(done)
    arms = [arm for arm in order_of(list(block["arm"].unique()), study) if arm not in costly]
    for arm in [*arms, *(arm for arm in order_of(list(block["arm"].unique()), study) if arm in costly)]:
        mine = done[done["arm"] == arm]
        all_ = ended(block[block["arm"] == arm])
        cells = [
            arm + (f" ({costly[arm]:g} passes)" if arm in costly else "") + _mark(mine),
            _count(mine, all_),
            *(_cell(mine, m) for m in chosen),
        ]
        if found is not None:
            cells += [*_typical(all_, primary, study), *_against_baseline(block, arm, study, found)]
        table.add(cells, tuple(all_["run"]))
    tied = [m.label for j, m in enumerate(chosen) if not _mark_best(table, done, arms, m, first, j + 2, study)]
    table.notes.append(
        f"Bold: best mean of an arm, as printed. {ALIKE}: may be the best as well (no other arm is shown to be better; "
        "exploratory). n: runs, of every cell that says no other; paired tests use seeds."
    )
    if costly:
        table.notes.append("An arm of several passes costs so many times the inference; bold and ~ are of the others.")
    if tied:
        table.notes.append(f"All arms are tied on {', '.join(tied)}.")
    if found is None:
        return table
    kind = "Holm over the family" if any(c.role == "primary" for c in found) else "Holm over the family, exploratory"
    table.notes.append(f"Difference and verdict: {primary.label} against {study.baseline}, paired; p: {kind}.")
    table.notes.append(
        f"Typical: interquartile mean, and Hodges-Lehmann difference with its exact interval and signed-rank p; a failed run "
        f"is the worst. Collapsed: {_rule(study)}; it is in every mean."
    )
    sets = sorted(done["teacher_set"].unique())
    if len(sets) == 1:
        table.notes.append(f"Conditional on teacher set {sets[0]}.")
    table.notes += _tuned(done)
    if (done["mixed"] != "").any():
        table.notes.append(f"* mixes: {', '.join(sorted(set(','.join(done['mixed']).split(',')) - {''}))}.")
    return table


def _count(done: pd.DataFrame, all_: pd.DataFrame) -> str:
    """`8`, or `8 (4 of 12 failed)`."""
    lost = len(all_) - len(done)
    return f"{len(done)} ({lost} of {len(all_)} failed)" if lost else str(len(done))


def _typical(runs: pd.DataFrame, m: metrics.Metric, study: Study) -> list[str]:
    """Interquartile mean, worst run, share of collapsed ones; of runs that have ended."""
    if m.column not in runs or not len(runs):
        return ["-", "-", "-"]
    bad = failed(runs, m.column)
    values = np.where(bad, -np.inf * m.sign, runs[m.column].astype(float))
    values = values[~np.isnan(values)]
    typical_ = interquartile_mean(values)
    told = collapsed(runs, study.collapse)[~bad]
    lost = share(int(np.nansum(told)), int(np.isfinite(told).sum()))
    shown_ = [m.text(x) if np.isfinite(x) else "failed" for x in (typical_, worst(values, m.sign))]
    shown_[1] = "failed" if bad.any() else shown_[1]
    return [*shown_, shown(lost) if lost.n else "-"]


def _rule(study: Study) -> str:
    rule = study.collapse
    return f"accuracy below {rule['accuracy']:g} of the teacher's, or a loss barrier above {rule['barrier']:g}"


def _cell(runs: pd.DataFrame, m: metrics.Metric) -> str:
    """Mean and sd; a deep-ensemble equivalent that met its cap in any run is a lower bound."""
    capped = m.column == "dee" and (runs["dee"] >= runs["dee_cap"]).any()
    return (">= " if capped else "") + mean_sd(runs[m.column], m, len(runs))


def _tuned(done: pd.DataFrame) -> list[str]:
    """Which arms were tuned, over what, by how many trials each."""
    found: dict[tuple[str, int, str], list[str]] = {}
    for arm, mine in done.groupby("arm", sort=True):
        about = mine["config"].iloc[0].get("tuned")
        if isinstance(about, dict):
            over = ", ".join(map(str, about.get("over") or ())) or "nothing"
            found.setdefault((plain(over), about.get("trials", 1), plain(str(about.get("on")))), []).append(arm)
    told = [f"{', '.join(arms)} over {over} ({trials} trials on {on})" for (over, trials, on), arms in found.items()]
    return [f"Tuned on validation NLL, with seeds of their own: {'; '.join(told)}."] if told else []


def passes_of(done: pd.DataFrame) -> dict[str, float]:
    """The arms whose students take several passes at inference, and how many."""
    if "inference_passes" not in done:
        return {}
    most = done.groupby("arm")["inference_passes"].max()
    return most[most > 1].to_dict()


def _mark(runs: pd.DataFrame) -> str:
    return " *" if "mixed" in runs and (runs["mixed"] != "").any() else ""


def _references(table: Table, done: pd.DataFrame, chosen: list[metrics.Metric], study: Study) -> None:
    """Teacher and ensemble, one value per teacher set: what the students learned from.

    Teachers of one set differ where a factor does, so every value of a factor has rows of its own.
    """
    factors = dict.fromkeys(("teachers.size", *study.factors))
    made = {factor: [str(value_at(config, factor)) for config in done["config"]] for factor in factors}
    varying = [factor for factor, values in made.items() if len(set(values)) > 1]
    labels = [", ".join(["", *(f"{factor}={made[factor][i]}" for factor in varying)]) for i in range(len(done))]
    for title, who in TAUGHT.items():
        names = [f"{who}_{m.column}" for m in chosen]
        there = [name for name in names if name in done]
        if not there:
            continue
        known = done.assign(_label=labels).dropna(subset=there, how="all")
        for label, alike in known.groupby("_label", sort=False):
            sets = alike.drop_duplicates("teacher_set")
            pairs = zip(names, chosen, strict=True)
            cells = [mean_sd(sets[name], m, len(sets)) if name in sets else "-" for name, m in pairs]
            blank = [""] * (len(table.columns) - 2 - len(cells))
            table.add([f"({title}{label})", str(len(sets)), *cells, *blank], tuple(sets["run"]))


def _published(table: Table, done: pd.DataFrame, chosen: list[metrics.Metric], study: Study) -> None:
    """What others found for arms of this data set and network, and whether ours could have found it."""
    known, where = study.published, done[["data", "model"]].drop_duplicates().to_numpy().tolist()
    if known is None or where != [[known.data, known.model]]:
        return
    for arm, found in known.arms.items():
        if arm in TAUGHT:
            mine, unit, prefix = done, "teacher_set", f"{TAUGHT[arm]}_"
        else:
            mine, unit, prefix = done[done["arm"] == arm], "seed", ""
        cells = [
            _met(_means(mine, unit, prefix + m.column), m, found[m.column]) if m.column in found else "-"
            for m in chosen
        ]
        blank = [""] * (len(table.columns) - 2 - len(cells))
        count = max(map(len, found.values()), default=0)
        table.add([f"(published {arm})", str(count), *cells, *blank], tuple(mine["run"]))
    table.notes.append(
        f"Published: {known.source}. Inside: within the 95 % prediction interval of this table's arm for the mean of as many "
        "further seeds on its teacher sets (others may lie elsewhere), of teachers for that of as many further sets."
    )


def _means(runs: pd.DataFrame, unit: str, column: str) -> np.ndarray:
    """The mean of every seed, or teacher set, that has one."""
    return runs.reindex(columns=[unit, column]).groupby(unit)[column].mean().dropna().to_numpy()


def _met(ours: np.ndarray, m: metrics.Metric, values: tuple[float, ...]) -> str:
    """A published mean and sd, and whether it lies where ours predict it."""
    text = mean_sd(np.array(values), m)
    low, high = statistics.prediction(ours, len(values))
    if low != low:
        return text
    return f"{text} ({'inside' if low <= np.mean(values) <= high else 'outside'})"


def _against_baseline(block: pd.DataFrame, arm: str, study: Study, found: list[Contrast]) -> list[str]:
    if arm == study.baseline:
        return ["", "", "", "", "baseline"]
    wanted = (block["data"].iloc[0], block["model"].iloc[0], arm, study.baseline, study.primary)
    for c in found:
        if (c.data, c.model, c.variant, c.reference, c.metric) == wanted:
            rank = [typical(c), probability(c.p_rank)]
            return [*rank, difference(c), probability(c.p_adjusted), c.shown_verdict]
    return ["", "", "", "", ""]


def _mark_best(
    table: Table, done: pd.DataFrame, arms: list[str], m: metrics.Metric, first: int, column: int, study: Study
) -> bool:
    """The best arm's cell in bold, and ALIKE on those that may be as good; False, and no mark, where all are tied.

    first: the row of the first arm.
    """
    means = done[done["arm"].isin(arms)].groupby("arm")[m.column].mean().dropna()
    first_ones = best(means.to_dict(), m)
    if not first_ones:
        return len(means) < 2
    table.bold |= {(first + arms.index(arm), column) for arm in first_ones}
    for arm in may_be_best(done, list(means.index), m, study) - first_ones:
        table.rows[first + arms.index(arm)][column] += f" {ALIKE}"
    return True


def may_be_best(runs: pd.DataFrame, arms: list[str], m: metrics.Metric, study: Study) -> set[str]:
    """The arms that no other arm is shown to be better than: the best one is among them at 1 - alpha.

    Each is tested one-sided against every other, at alpha over their number. Which one has the best mean in these runs
    does not matter, so that luck in one arm does not choose what all are compared with.
    """
    least = dict.fromkeys(arms, 1.0)
    for arm, other in combinations(arms, 2):
        d = m.sign * pair(runs, {arm: 1.0, other: -1.0}, m.column).by_seed
        if len(d) > 1:
            for loser, gain in ((other, d), (arm, -d)):
                least[loser] = np.fmin(least[loser], statistics.decide(gain, study.test, "greater"))
    return {arm for arm in arms if least[arm] > study.alpha / max(len(arms) - 1, 1)}


def cross(runs: pd.DataFrame, study: Study) -> Table | None:
    """Arm x (data set x network) on the primary metric; None where there is one block only."""
    done = runs[runs["status"] == "done"]
    groups = blocks_of(done)
    if len(groups) < 2:
        return None
    m = metrics.metric(study.primary)
    table = Table(f"{m.label} across data sets and networks", ["arm", *(name for name, _ in groups)])
    arms = order_of(list(done["arm"].unique()), study.complete(present(done)))
    most = int(done.groupby(["data", "model", "arm"]).size().max())
    for arm in arms:
        cells = [mean_sd(block.loc[block["arm"] == arm, m.column], m, most) for _, block in groups]
        table.add([arm, *cells], tuple(done.loc[done["arm"] == arm, "run"]))
    for j, (_, block) in enumerate(groups):
        winners = best(block.groupby("arm")[m.column].mean().to_dict(), m)
        table.bold |= {(arms.index(arm), j + 1) for arm in winners}
    table.notes.append(f"Bold: best mean of the column. n={most} runs where a cell says no other.")
    return table
