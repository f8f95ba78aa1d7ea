"""Failed and collapsed runs as outcomes of their own: how many of how many, and whether one arm has more of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from analysis.inference.outcomes import Share, matched, share
from analysis.records.outcomes import collapsed, ended, failed
from analysis.verdicts.notation import p_equals

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records.study import Study


class Outcome(NamedTuple):
    """What happened, to how many runs of either arm, and the exact p of an even split over matched seeds (McNemar)."""

    what: str
    variant: Share
    reference: Share
    p: float

    @property
    def words(self) -> str:
        """`Failed: 4 of 12 [9.9, 65.1] % against 0 of 12 [0.0, 26.5] % (McNemar p = .125).`"""
        mine, other = shown(self.variant), shown(self.reference)
        return f"{self.what.capitalize()}: {mine} against {other} (McNemar {p_equals(self.p)})."


def outcomes_of(block: pd.DataFrame, variant: str, reference: str, column: str, study: Study) -> tuple[Outcome, ...]:
    """What happened to matched runs of two arms of one (data, model); nothing where nothing did."""
    runs = ended(block)
    keys = ["teacher_set", "seed"]
    found = []
    for what, bad in (("failed", failed(runs, column)), ("collapsed", collapsed(runs, study.collapse))):
        wide = (
            runs.assign(_bad=bad).pivot(index=keys, columns="arm", values="_bad").reindex(columns=[variant, reference])
        )
        wide = wide.dropna().astype(int)
        if wide.to_numpy().any():
            by_seed = wide.groupby(level="seed").sum()
            shares = [share(int(wide[arm].sum()), len(wide)) for arm in (variant, reference)]
            found.append(Outcome(what, *shares, matched(by_seed[variant], by_seed[reference])))
    return tuple(found)


def shown(found: Share) -> str:
    """`1 of 24 [0.1, 21.1] %`."""
    return f"{found.count} of {found.n} [{100 * found.low:.1f}, {100 * found.high:.1f}] %"


def worst(values: np.ndarray, sign: int) -> float:
    """The worst of the finite values; NaN where there is none."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(sign * (sign * values).min()) if len(values) else float("nan")
