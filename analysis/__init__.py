"""Reads run records: tables, contrasts, figures, report, regression gate. Never imports torch.

Names are loaded when first used, so that `import analysis` costs nothing:

    import analysis
    runs = analysis.load("runs")                    # one row a run
    study = analysis.study_of(runs)                 # what was declared before the runs
    print(analysis.compare(runs, study))            # paired differences, adjusted, with verdicts
    analysis.figures.slopes(runs, "combined", "kd").savefig("slopes.pdf")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "load": "records.loading",
    "export": "records.exports",
    "read_study": "records.declared",
    "Mixture": "records.errors",
    "Study": "records.study",
    "study_of": "records.declared",
    "compare": "verdicts.contrasts",
    "ablation": "report.tables.ablation",
    "costs": "report.tables.costs",
    "switches": "report.tables.contrasts",
    "cell_means": "verdicts.factorial",
    "across_blocks": "verdicts.blocks",
    "build_report": "report.page",
}
_MODULES = {
    "baseline": "records.baseline",
    "calibration": "inference.calibration",
    "figures": "report.figures.gallery",
    "gate": "verdicts.gate",
    "images": "verdicts.images",
    "metrics": "records.metrics",
    "power": "inference.power",
    "predictions": "records.predictions",
    "resampling": "inference.resampling",
    "simulation": "inference.simulation",
    "statistics": "inference.statistics",
}

__all__ = [*sorted(_HOME), *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"analysis.{_MODULES[name]}")
    if name in _HOME:
        return getattr(import_module(f"analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")
