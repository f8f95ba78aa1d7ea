"""The public names as somebody else's type checker sees them: `mypy` reads this file, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import assert_type

import analysis
import harness
import methods
from analysis.records.study import Study
from harness.notebook import Run, Runs
from harness.run.run import execute
from harness.sweep.plan import make_plan
from methods.combined import Combined
from methods.method import Method, Teachers

# Runs and sweeps; the rooms of these names are still there.
run = harness.run("train=smoke", method="combined", seed=0, teachers={"size": 2})
assert_type(run, Run)
assert_type(run["cost"], Any)
assert_type(run.folder, Path)
assert_type(run.metrics["student"]["test"]["acc"], float)
assert_type(run.history, list[dict[str, Any]])
assert_type(run.network(), nn.Module)
runs = harness.sweep(method="all", seed=range(3))
assert_type(runs, Runs)
assert_type(runs[0], Run)
assert_type(runs.missing, dict[Path, str])
assert_type(harness.__version__, str)
execute(run.config, harness.Console())  # type: ignore[attr-defined]
make_plan([run.config])
harness.run(3)  # type: ignore[arg-type]
harness.rnu()  # type: ignore[attr-defined]

# Conclusions
frame = analysis.load(runs.folder)
study = analysis.study_of(frame)
assert_type(study, Study)
analysis.build_report(frame, study, "report.html").encode()
analysis.figures.slopes(frame, "combined", "kd").savefig("slopes.pdf")
analysis.laod("runs")  # type: ignore[attr-defined]

# A method in a loop of one's own
method: Method = Combined(temperature=2.0, student_term=False)
teachers = Teachers([nn.Linear(3, 3)])
images, labels, draws = torch.rand(2, 3), torch.tensor([0, 1]), torch.Generator()
student = method.student(nn.Linear(3, 3), len(teachers), draws)
assert_type(method.inputs(images, labels, teachers, student, draws), tuple[torch.Tensor, torch.Tensor])
assert_type(method.loss(images, labels, teachers, student)["loss"], torch.Tensor)
assert_type(method.deploy(student), nn.Module)
torch.optim.SGD(method.rated_groups(student, lr=0.1, weight_decay=0.0))
assert_type(methods.groups(), dict[str, list[str]])
Combined(temprature=2.0)  # type: ignore[call-arg]
