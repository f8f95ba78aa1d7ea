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
    "load": "records",
    "export": "records",
    "read_study": "study",
    "Mixture": "records",
    "Study": "study",
    "study_of": "study",
    "compare": "contrasts",
    "ablation": "tables",
    "costs": "tables",
    "switches": "tables",
    "cell_means": "factorial",
    "across_blocks": "blocks",
    "build_report": "report",
}
_MODULES = {"figures", "statistics", "resampling", "metrics", "gate", "power", "predictions", "simulation"}

__all__ = [*sorted(_HOME), *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"analysis.{name}")
    if name in _HOME:
        return getattr(import_module(f"analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'analysis' has no attribute {name!r}")
