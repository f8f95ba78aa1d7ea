"""Contrasts of given differences, through the real pairing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.records import pairing
from analysis.records.metrics import metric as known
from analysis.records.study import Study
from analysis.verdicts.contrast import Contrast
from analysis.verdicts.contrasts import judge, measure


def contrast(d, metric="nll", margin=None, role="primary", alpha=0.05, test="guarded"):
    """A Contrast of the given differences, not judged yet; where one is infinite, a run of one side failed."""
    higher = known(metric).higher
    rows = [
        {
            "status": "failed" if np.isinf(x) and arm == ("new" if (x > 0) != higher else "old") else "done",
            "arm": arm,
            "teacher_set": 0,
            "seed": s,
            "run": f"{arm}{s}",
            metric: 1 + x if arm == "new" and np.isfinite(x) else 1,
        }
        for s, x in enumerate(d)
        for arm in ("new", "old")
    ]
    columns = ["status", "arm", "teacher_set", "seed", "run", metric]
    pairs = pairing.pair(pd.DataFrame(rows, columns=columns), {"new": 1.0, "old": -1.0}, metric)
    declared = Study(margins={metric: margin} if margin else {}, alpha=alpha, test=test)
    return measure(
        pairs,
        known(metric),
        declared,
        family="f",
        kind="pairs",
        data="d",
        model="m",
        variant="new",
        reference="old",
        role=role,
    )


def one(d, **more) -> Contrast:
    """The same as a family of its own, judged."""
    return judge([contrast(d, **more)])[0]
