"""Runs that must not share a cell: other code, other data, another recipe, other teachers; and other arithmetic.

A cell is an arm on a data set and a network; its runs may differ in seed and teacher set only. Recipe, data
(no split depends on a seed) and teachers must also agree between the arms that are compared. Code may differ
between arms (a variant added later), but not within one: across arms it is a warning.

Arithmetic (device, threads, precision of convolutions, torch) may differ, and is shown: it blurs pairs, for a run ends
nearly as far from itself as from another seed, and no mean was found to move (harness/training/README.md).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.records.errors import AnalysisError, AnalysisWarning, Mixture
from analysis.records.options import flatten, value_at
from analysis.records.texts import few, plain
from harness.store.identity import INCIDENTAL

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study

KINDS = ("code", "data", "recipe", "teachers")
ARITHMETIC = "arithmetic"  # the kind that is shown, and not refused
_INCIDENTAL = tuple(f"{option}." for option in INCIDENTAL)


@dataclass(frozen=True)
class Mixed:
    """One mixture: its kind, the cell it sits in, and the runs by value."""

    kind: str
    cell: str
    runs: dict[str, list[str]]

    def __str__(self) -> str:
        parts = [f"{value} ({len(runs)} runs: {few(runs)})" for value, runs in self.runs.items()]
        return plain(f"{self.kind} in {self.cell}: " + " | ".join(parts))


def find(frame: pd.DataFrame, study: Study) -> list[Mixed]:
    """All mixtures in the table, failed runs left out (they are in no cell)."""
    runs = frame[frame["status"] == "done"]
    found: list[Mixed] = []
    for (data, model), block in runs.groupby(["data", "model"], dropna=False, sort=True):
        place = f"{data} x {model}"
        for arm, cell in block.groupby("arm", sort=True):
            found += _differing("code", f"{place}, {arm}", cell, cell["code"])
        revisions = block["code"].dropna().unique()
        if len(revisions) > 1 and not any(m.kind == "code" and m.cell.startswith(place) for m in found):
            warnings.warn(
                f"arms on {place} come from different code: {', '.join(sorted(revisions))}",
                AnalysisWarning,
                stacklevel=3,
            )
        found += _differing("data", place, block, block["data_fingerprint"])
        found += _recipes(place, block, study)
        found += _teachers(place, block, study)
        found += _differing(ARITHMETIC, place, block, block.reindex(columns=["arithmetic"])["arithmetic"])
    return found


def _differing(kind: str, cell: str, runs: pd.DataFrame, values: pd.Series) -> list[Mixed]:
    values = values.dropna()
    if values.nunique() < 2:
        return []
    return [
        Mixed(
            kind,
            cell,
            {str(v): list(runs.loc[values.index[values == v], "run"]) for v in sorted(values.unique())},
        )
    ]


def recipe(config: dict[str, Any], factors: Iterable[str] = ()) -> dict[str, Any]:
    """All that decides a result except method, seed and teacher set, flat: {"train.epochs": 40, ...}."""
    kept = {name: config.get(name) for name in ("data", "train", "teachers", "model", "network")}
    flat = {key: value for key, value in flatten(kept).items() if decides(key, factors) and value != {}}
    if (tuned := value_at(config, "tuned.digest")) is not None:
        flat["tuned"] = tuned  # what was tuned is compared with what was tuned alike
    # A teacher network that is not named is the student's.
    if value_at(config, "teachers.model") is None and "teachers.model" in flat:
        flat["teachers.model"] = config.get("model")
    return flat


def decides(key: str, factors: Iterable[str] = ()) -> bool:
    """Whether an option is part of the recipe; the teachers' own has the same incidental ones as the student's."""
    if f"{key.removeprefix('teachers.')}.".startswith(_INCIDENTAL):
        return False
    return not f"{key}.".startswith(("teachers.set.", *(f"{name}." for name in factors)))


def _recipes(place: str, block: pd.DataFrame, study: Study) -> list[Mixed]:
    recipes = [recipe(config, study.factors) for config in block["config"]]
    keys = sorted({key for r in recipes for key in r})
    varying = [key for key in keys if len({json.dumps(r.get(key)) for r in recipes}) > 1]
    if not varying:
        return []
    groups: dict[str, list[str]] = {}
    for run, r in zip(block["run"], recipes, strict=True):
        groups.setdefault(", ".join(f"{k}={r.get(k)}" for k in varying), []).append(run)
    return [Mixed("recipe", place, groups)]


def _teachers(place: str, block: pd.DataFrame, study: Study) -> list[Mixed]:
    found: list[Mixed] = []
    size = [len(names.split(",")) if isinstance(names, str) else 0 for names in block["teachers"]]
    # A method with one teacher lists the first of the set that the others list in full: compare what all list.
    for number, cell in block.assign(_size=size).groupby("teacher_set"):
        named = cell[cell["_size"] > 0]
        if not len(named) or "teachers.size" in study.factors:
            continue
        first = named["teachers"].str.split(",").str[0]
        mixed = _differing("teachers", f"{place}, teacher set {number}", named, first)
        for _, alike in named.groupby("_size"):
            mixed = mixed or _differing("teachers", f"{place}, teacher set {number}", alike, alike["teachers"])
        found += mixed or _retrained(place, named)
    # Several sets in one cell are a design where they are crossed with seeds; where no seed saw two sets, the sets'
    # effect hides in the seeds'.
    for arm, cell in block.groupby("arm", sort=True):
        if cell["teacher_set"].nunique() > 1 and cell.groupby("seed")["teacher_set"].nunique().max() == 1:
            found += _differing("teachers", f"{place}, {arm} (sets not crossed with seeds)", cell, cell["teacher_set"])
    return found


def _retrained(place: str, named: pd.DataFrame) -> list[Mixed]:
    """A teacher of one name, of which runs learned that are not the same: it was lost in between and trained again, or
    each folder has its own.

    Earlier records do not know its weights; but all of one code agree on what it came to.
    """
    place = f"{place}, a teacher that is not one:"
    named = named.reindex(columns=["run", "code", "data_fingerprint", "teachers", "teacher_weights", "teacher_nll"])
    known = named.dropna(subset=["teacher_weights"]).astype({"teacher_weights": str})
    known = known[known["teachers"].str.count(",") == known["teacher_weights"].str.count(",")]
    known = known.assign(_name=known["teachers"].str.split(","), _weights=known["teacher_weights"].str.split(","))
    for name, runs in known.explode(["_name", "_weights"]).groupby("_name"):
        if found := _differing("teachers", f"{place} {name}", runs, "weights " + runs["_weights"]):
            return found
    for (_, _, names), runs in named.groupby(["code", "data_fingerprint", "teachers"]):
        nll = runs["teacher_nll"].dropna().map("NLL {:.6f}".format)
        if found := _differing("teachers", f"{place} {names.split(',')[0]}", runs, nll):
            return found
    return []


def refuse(found: list[Mixed], allow: Iterable[str]) -> None:
    """Raise Mixture for those not allowed; warn of the others, and of those that are shown only."""
    allowed = set(allow)
    unknown = allowed - {*KINDS, "all"}
    if unknown:
        raise AnalysisError(f"cannot allow {', '.join(sorted(unknown))}: choose of {', '.join(KINDS)}, all")
    refused = [item for item in found if item.kind not in allowed | {ARITHMETIC} and "all" not in allowed]
    if refused:
        kinds = ",".join(sorted({item.kind for item in refused}))
        raise Mixture(
            "these runs would mislead in one table (choose with --where KEY=VALUE, declare study.factors, or pass "
            f"--allow-mixed {kinds}):\n" + "\n".join(f"  {item}" for item in refused)
        )
    for item in found:
        asked = "mixed" if item.kind == ARITHMETIC else "mixed on request"
        warnings.warn(f"{asked}: {item}", AnalysisWarning, stacklevel=3)


def marks(frame: pd.DataFrame, found: list[Mixed]) -> list[str]:
    """For every run, the kinds of mixture it takes part in ('' for none)."""
    kinds: dict[str, set[str]] = {}
    for item in found:
        for runs in item.runs.values():
            for run in runs:
                kinds.setdefault(run, set()).add(item.kind)
    return [",".join(sorted(kinds.get(run, ()))) for run in frame["run"]]
