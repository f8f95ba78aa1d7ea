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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers, which load nothing
    from analysis.inference import calibration as calibration
    from analysis.inference import power as power
    from analysis.inference import resampling as resampling
    from analysis.inference import simulation as simulation
    from analysis.inference import statistics as statistics
    from analysis.records import baseline as baseline
    from analysis.records import metrics as metrics
    from analysis.records import predictions as predictions
    from analysis.records.declared import read_study as read_study
    from analysis.records.declared import study_of as study_of
    from analysis.records.errors import Mixture as Mixture
    from analysis.records.exports import export as export
    from analysis.records.loading import load as load
    from analysis.records.study import Study as Study
    from analysis.report.figures import gallery as figures  # noqa: F401
    from analysis.report.page import build_report as build_report
    from analysis.report.tables.ablation import ablation as ablation
    from analysis.report.tables.contrasts import switches as switches
    from analysis.report.tables.costs import costs as costs
    from analysis.verdicts import gate as gate
    from analysis.verdicts import images as images
    from analysis.verdicts.blocks import across_blocks as across_blocks
    from analysis.verdicts.contrasts import compare as compare
    from analysis.verdicts.factorial import cell_means as cell_means

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


if not TYPE_CHECKING:  # which would hide misspelt names from them

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"analysis.{_MODULES[name]}")
        if name in _HOME:
            return getattr(import_module(f"analysis.{_HOME[name]}"), name)
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
