"""A shell's own defaults for sbatch (SBATCH_PARTITION), which by themselves would beat the launcher's options.

Those that say where a job goes and who pays count where the launcher leaves that open. The others do not count. Both is
said.
"""

from __future__ import annotations

import os

from harness.jobs.backend import Shape
from harness.jobs.request import additional, options

DEFAULTS = {
    f"SBATCH_{name.upper()}": name for name in ("account", "partition", "qos", "reservation", "constraint", "wckey")
}
ALSO_READ = ("SLURM_CLUSTERS", "SLURM_HINT")  # by sbatch; of a job that we run in they are not the user's


def complete(shape: Shape) -> Shape:
    """The shape with what the shell says where the launcher leaves it open."""
    asked = options(shape)
    given = {name: value for variable, name in DEFAULTS.items() if (value := os.environ.get(variable))}
    added = {name: value for name, value in given.items() if name not in asked}
    return {**shape, "additional_parameters": additional(shape) | added}


def describe(shapes: list[Shape]) -> list[str]:
    """What becomes of the shell's defaults, in lines for the user."""
    read = () if "SLURM_JOB_ID" in os.environ else ALSO_READ
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith("SBATCH_") or name in read}
    heeded = {
        name: value
        for name, value in found.items()
        if name in DEFAULTS and value and any(options(complete(shape))[DEFAULTS[name]] == value for shape in shapes)
    }
    lines = []
    if heeded:
        said = ", ".join(f"{name}={value}" for name, value in heeded.items())
        lines.append(f"{said} of this shell: taken, as hydra.launcher leaves it open")
    if rest := ", ".join(name for name in found if name not in heeded):
        lines.append(f"{rest} of this shell: not taken, hydra.launcher says what jobs ask for")
    return lines
