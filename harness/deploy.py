"""`python -m harness.deploy RUN`: the finished student of a run directory, checked, exported and measured.

It is loaded into a plain network and must repeat the run's recorded predictions on the test split. Then it is written
to RUN/deploy (or --to FOLDER):

    student.safetensors   weights
    student.pt2           torch.export's program, batch size free: runs without this package (torch.export.load)
    student.onnx          with --onnx, which needs the extra packages onnx and onnxscript: one file, batch size free
    preparation.py        what makes their input of a picture, as in training; it imports nothing of this package

and its parameters, operations and latency are shown beside those of a freshly built plain network and of the ensemble
that it was distilled from. All of them take pixels in [0, 1], normalise them themselves, and have what there is to know
of them as metadata (see `describe` in harness/run/export.py; in student.pt2 it is the extra file about.json).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.config import ConfigError
from harness.runtime.console import Console, complain, run_command
from harness.store.files import Damaged


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m harness.deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a finished run's directory")
    parser.add_argument("--to", type=Path, help="folder for the files (default: RUN/deploy)")
    parser.add_argument("--onnx", action="store_true", help="write ONNX as well")
    options = parser.parse_args(arguments)
    from harness.run.deployment import deploy  # torch, which help does not wait for

    try:
        deploy(options.run, options.to or options.run / "deploy", options.onnx, Console())
    except (ConfigError, Damaged) as error:
        complain(error)
        return 2
    return 0


if __name__ == "__main__":
    run_command(main)
