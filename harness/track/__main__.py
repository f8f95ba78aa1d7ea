"""`python -m harness.track RUNS... --to tensorboard|wandb|mlflow [--watch]`: what runs came to, where people look.

Reads the folders of runs, and shows every run as a page: its epochs as curves, its metrics, configuration, origin and
how it ended. No job needs a tracker, and none of it a network. The same command again sends what is new, and only that.

    --to tensorboard   event files, in --out tensorboard
    --to wandb         offline runs, in --out wandb, which `wandb sync` uploads; a run when it has ended
    --to mlflow        a folder (--out mlruns), a database or a server (--out http://HOST:5000)

The exit status is 1 where a run was not sent, 2 where none could be.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from harness.runtime.console import Console, complain, run_command
from harness.store.claim import Claimed
from harness.store.files import Damaged
from harness.store.runs import find_runs
from harness.track.push import Push
from harness.track.tracker import Missing, Refused, Tracker

EVERY_S = 10.0
LOOKS = 2  # at nothing that runs or waits: between teachers and students there may be none for a moment
TRACKERS = ("tensorboard", "wandb", "mlflow")
PROJECT = "ensemble-distillation"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m harness.track", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="a run's directory, or a folder of runs")
    parser.add_argument("--to", required=True, choices=TRACKERS)
    parser.add_argument("--out", help="folder, for mlflow also an address (default: see above, or MLFLOW_TRACKING_URI)")
    parser.add_argument("--project", help=f"of wandb, or the experiment of mlflow (default: {PROJECT})")
    parser.add_argument("--watch", action="store_true", help="go on until no run runs or waits, or Ctrl-C")
    options = parser.parse_args(arguments)
    out = options.out or default_place(options.to)
    if wrong := misuse(options.runs, options.to, out, options.project):
        complain(wrong)
        return 2
    console = Console()
    try:
        tracker = open_tracker(options.to, out, options.project or PROJECT)
        with Push(tracker, options.runs, console) as push:
            push.send()
            idle = 0
            while options.watch and idle < LOOKS:
                time.sleep(EVERY_S)
                idle = 0 if push.send() or push.go_on() else idle + 1
    except (Missing, Refused, Claimed, Damaged, OSError) as error:
        complain(error)
        return 2
    console.say(f"{len(push.there - push.wrong.keys())} of {len(push.pages)} runs are there: {tracker.where}")
    return 1 if push.wrong else 0


def default_place(kind: str) -> str:
    """Where results go unless told, beside the folder of runs."""
    return os.environ.get("MLFLOW_TRACKING_URI", "mlruns") if kind == "mlflow" else kind


def misuse(runs: Sequence[Path], kind: str, out: str, project: str | None) -> str | None:
    """What is wrong with the arguments, in one line."""
    for folder in runs:
        if not folder.is_dir():
            return f"no folder {folder}"
        if "://" not in out and Path(out).resolve().is_relative_to(folder.resolve()):
            return f"{out} would lie among the runs of {folder}: take another folder with --out"
    if next((run for folder in runs for run in find_runs(folder)), None) is None:
        return f"no runs in {', '.join(map(str, runs))}"
    if project is not None and kind == "tensorboard":
        return "TensorBoard knows no projects: take a folder of its own with --out"
    return None


def open_tracker(kind: str, out: str, project: str) -> Tracker:
    """The tracker of a kind. Raises Missing, Refused."""
    if kind == "tensorboard":
        from harness.track.tensorboard import TensorBoard

        return TensorBoard(out)
    if kind == "wandb":
        from harness.track.wandb import WandB

        return WandB(out, project)
    from harness.track.mlflow import MLflow

    return MLflow(out, project)


if __name__ == "__main__":
    run_command(main)
