"""What was decided before the runs: the question, the primary metric, who is compared with whom.

A sweep's YAML has a block `study:`, which the harness copies into every record's configuration:

    study:
      question: Does weight averaging help beyond perturbation?
      primary: nll                    # one metric decides; the others are exploratory
      baseline: ensemble_kd
      alpha: 0.05                     # family-wise, within each family
      test: guarded                   # or t, sign_flip (see analysis/inference/statistics.py)
      margins: {nll: 0.02, acc: 0.005}    # smallest differences of interest, in the metric's own unit
      arms:                           # names for configurations, optional
        lbe_tdiv: {method: {name: combined, student_term: false}}     # or {method.name: combined, ...}
      factors: [teachers.size]            # keys that tell arms apart beside the method's options, optional
      families:
        variants: {against: ensemble_kd, arms: [weight_averaging, perturbation, combined]}  # default: all
        ladder: {ladder: [kd, ensemble_kd, weight_averaging, lbe_tdiv, combined]}
        parts:
          factorial:
            {neither: ensemble_kd, first: weight_averaging, second: perturbation, both: lbe_tdiv,
             names: [weight averaging, perturbation]}
        own: {pairs: [[combined, lbe_tdiv]]}                            # [variant, reference]
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import metrics
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.options import flatten

if TYPE_CHECKING:
    import pandas as pd

TESTS = ("guarded", "t", "sign_flip")
KINDS = ("against", "ladder", "factorial", "pairs")
LADDER = ("kd", "ensemble_kd", "weight_averaging", "combined")
CELLS = ("neither", "first", "second", "both")
FACTORIAL = {
    "neither": ("ensemble_kd",),
    "first": ("weight_averaging",),
    "second": ("perturbation",),
    "both": ("combined[student_term=false]",),
}


@dataclass(frozen=True)
class Family:
    """Comparisons that share one family-wise error level."""

    name: str
    kind: str  # one of KINDS
    arms: tuple[str, ...] = ()  # ladder: its steps; against: the variants (empty: all); factorial: its four cells
    reference: str | None = None  # against: the baseline
    pairs: tuple[tuple[str, str], ...] = ()
    names: tuple[str, str] = ("weight averaging", "perturbation")  # factorial: the two factors
    declared: bool = True

    def comparisons(self, present: list[str]) -> list[tuple[str, str]]:
        """(variant, reference) pairs among the arms that are there; a factorial has none of this kind."""
        if self.kind == "against":
            variants = self.arms or tuple(arm for arm in present if arm != self.reference)
            wanted = [(variant, self.reference) for variant in variants]
        elif self.kind == "ladder":
            steps = [arm for arm in self.arms if arm in present]
            wanted = [(b, a) for a, b in pairwise(steps)]
        else:
            wanted = list(self.pairs)
        return [(a, b) for a, b in wanted if a in present and b in present]

    def absent(self, present: list[str]) -> list[str]:
        """Declared arms that no run has yet."""
        named = {
            *self.arms,
            *(arm for pair in self.pairs for arm in pair),
            *([self.reference] if self.reference else []),
        }
        return sorted(named - set(present))


@dataclass(frozen=True)
class Study:
    """The declared design. `source` says where it was declared: 'records', a file's name, or 'nowhere'."""

    question: str | None = None
    primary: str = "nll"
    baseline: str | None = None
    alpha: float = 0.05
    test: str = "guarded"
    margins: dict[str, float] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    factors: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()
    source: str = "nowhere"

    def complete(self, present: list[str]) -> Study:
        """Fill in what was not declared, for the arms that are there; families made up here are exploratory."""
        baseline = self.baseline
        if baseline is None and present:
            baseline = next((arm for arm in ("ensemble_kd", "kd") if arm in present), present[0])
        return replace(self, baseline=baseline, families=self.families or _default_families(baseline, present))


def parse(block: Any, source: str) -> Study:
    """A Study from the mapping under `study:`. Raises AnalysisError naming the key that is wrong."""

    def fail(message: str) -> AnalysisError:
        return AnalysisError(f"study ({source}): {message}")

    if not isinstance(block, dict):
        raise fail("expected a mapping with question, primary, baseline, families, margins, alpha")
    known = {"name", *(f.name for f in fields(Study) if f.name != "source")}
    unknown = set(block) - known
    if unknown:
        raise fail(f"unknown keys {', '.join(sorted(map(str, unknown)))}; known are {', '.join(sorted(known))}")
    alpha, test = block.get("alpha", 0.05), block.get("test", "guarded")
    if not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise fail(f"alpha must lie between 0 and 1, not {alpha!r}")
    if test not in TESTS:
        raise fail(f"unknown test {test!r}: choose one of {', '.join(TESTS)}")
    margins = block.get("margins") or {}
    for name in (*margins, block.get("primary", "nll")):
        try:
            metrics.metric(name)
        except AnalysisError as error:
            raise fail(str(error)) from error
    for name, value in margins.items():
        if not isinstance(value, int | float) or value <= 0:
            raise fail(f"margin of {name} must be a positive number, not {value!r}")
    return Study(
        question=block.get("question"),
        primary=block.get("primary", "nll"),
        baseline=block.get("baseline"),
        alpha=float(alpha),
        test=test,
        margins={name: float(value) for name, value in margins.items()},
        arms={str(label): flatten(wanted) for label, wanted in (block.get("arms") or {}).items()},
        factors=tuple(block.get("factors") or ()),
        families=tuple(_family(name, body, fail) for name, body in (block.get("families") or {}).items()),
        source=source,
    )


def _family(name: str, body: Any, fail: Callable[[str], AnalysisError]) -> Family:
    if isinstance(body, list):
        body = {"pairs": body}
    kinds = [kind for kind in KINDS if isinstance(body, dict) and kind in body]
    if len(kinds) != 1:
        raise fail(f"family {name} needs exactly one of {', '.join(KINDS)}")
    kind, value = kinds[0], body[kinds[0]]
    if kind == "against":
        return Family(name, kind, arms=tuple(body.get("arms") or ()), reference=str(value))
    if kind == "ladder":
        if not isinstance(value, list) or len(value) < 2:
            raise fail(f"family {name}: a ladder is a list of at least two arms")
        return Family(name, kind, arms=tuple(value))
    if kind == "pairs":
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise fail(f"family {name}: pairs are lists [variant, reference]")
        return Family(name, kind, pairs=tuple((str(a), str(b)) for a, b in value))
    missing = [cell for cell in CELLS if cell not in value]
    if missing:
        raise fail(f"family {name}: the factorial lacks {', '.join(missing)}")
    names = tuple(value.get("names") or ("first factor", "second factor"))
    if len(names) != 2:
        raise fail(f"family {name}: names are those of the two factors")
    return Family(name, kind, arms=tuple(value[cell] for cell in CELLS), names=names)


def _default_families(baseline: str | None, present: list[str]) -> tuple[Family, ...]:
    families = [Family("variants", "against", reference=baseline, declared=False)]
    ladder = tuple(arm for arm in LADDER if arm in present)
    if len(ladder) > 1:
        families.append(Family("ladder", "ladder", arms=ladder, declared=False))
    cells = [next((arm for arm in FACTORIAL[cell] if arm in present), None) for cell in CELLS]
    if all(cells):
        families.append(Family("factorial", "factorial", arms=tuple(cells), declared=False))
    return tuple(families)


def read_study(path: str | Path) -> Study:
    """The study block of a sweep's YAML file."""
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise AnalysisError(f"no such study file: {path}") from error
    except yaml.YAMLError as error:
        raise AnalysisError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "study" not in content:
        raise AnalysisError(f"{path} has no block `study:`")
    return parse(content["study"], path.name)


def study_of(frame: pd.DataFrame) -> Study:
    """The study that the records declare; an empty one where none does.

    Raises AnalysisError where they declare several: choose one with --study FILE.
    """
    blocks: dict[str, Any] = {}
    silent = 0
    for config in frame["config"]:
        block = config.get("study")
        if block:
            blocks[json.dumps(block, sort_keys=True)] = block
        else:
            silent += 1
    if not blocks:
        return Study()
    if len(blocks) > 1:
        names = "; ".join(
            str(b.get("question") or b.get("name") or "?") if isinstance(b, dict) else str(b) for b in blocks.values()
        )
        raise AnalysisError(
            f"the records declare {len(blocks)} different studies ({names}): choose one with --study FILE"
        )
    if silent:
        warnings.warn(
            f"{silent} of {len(frame)} runs were made outside the declared study",
            AnalysisWarning,
            stacklevel=3,
        )
    return parse(next(iter(blocks.values())), "records")
