"""Names of arms: what is compared with what.

An arm is a method with its options. Its name is the method's, followed by those options that vary among the
loaded runs of that method and differ from their default: `combined`, `combined[student_term=false]`,
`kd[temperature=1]`. The default is what the record says the method's default was; for records that do not
say, the commonest value. A study can name its arms itself (`study.arms`), which does not depend on what else
is loaded, and can add factors outside the method (`study.factors: [teachers.size]`) that distinguish arms
instead of being refused as a mixture.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from analysis.records.options import as_text, of_method, value_at
from analysis.records.outcomes import ended
from analysis.records.texts import plain

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study


def present(runs: pd.DataFrame) -> list[str]:
    """The arms that have a run with an outcome, be it a failure, by name."""
    return sorted(ended(runs)["arm"].unique())


def labels(frame: pd.DataFrame, study: Study) -> list[str]:
    """The arm of every run, [runs]."""
    declared = [_declared(config, study) for config in frame["config"]]
    options = [_telling(config, study.factors) for config in frame["config"]]
    usual = _defaults(frame, options, [i for i, label in enumerate(declared) if label is None])
    result = []
    for label, method, mine in zip(declared, frame["method"], options, strict=True):
        if label is None:
            changed = [
                f"{k}={as_text(v)}" for k, v in sorted(mine.items()) if k in usual[method] and v != usual[method][k]
            ]
            label = method + (f"[{', '.join(changed)}]" if changed else "")
        result.append(plain(label))
    return result


def _telling(config: dict[str, Any], factors: tuple[str, ...]) -> dict[str, Any]:
    """What tells arms of one method apart: its options by short name, factors by full name."""
    return of_method(config) | {factor: value_at(config, factor) for factor in factors}


def _defaults(frame: pd.DataFrame, options: list[dict[str, Any]], rows: list[int]) -> dict[str, dict[str, Any]]:
    """For every method, the default of each option that varies among the given rows."""
    methods = list(frame["method"])
    runs_of = Counter(methods[i] for i in rows)
    seen: dict[str, dict[str, Counter[str]]] = {}
    for i in rows:
        counts = seen.setdefault(methods[i], {})
        for name, value in options[i].items():
            counts.setdefault(name, Counter())[json.dumps(value, sort_keys=True)] += 1
    known: dict[str, dict[str, Any]] = {}
    for method, recorded in zip(frame["method"], frame["method_defaults"], strict=True):
        if isinstance(recorded, dict):
            known[method] = recorded
    result: dict[str, dict[str, Any]] = {}
    for method, counts in seen.items():
        result[method] = {}
        for name, values in counts.items():
            if len(values) == 1 and values.total() == runs_of[method]:
                continue
            if name in known.get(method, {}):
                result[method][name] = known[method][name]
            else:
                # Ties by text, so that the order of the runs does not matter ("true" before "false").
                result[method][name] = json.loads(max(values, key=lambda v: (values[v], v)))
    return result


def _declared(config: dict[str, Any], study: Study) -> str | None:
    """The study's own name for this configuration: of those that match, the one that says most."""
    matching = [
        (len(wanted), label)
        for label, wanted in study.arms.items()
        if all(value_at(config, key) == value for key, value in wanted.items())
    ]
    return max(matching, key=lambda item: item[0])[1] if matching else None
