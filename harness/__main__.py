"""`python -m harness`: one run, or with `-m` a sweep. See HELP."""

from __future__ import annotations

import sys

from harness import __version__
from harness.runtime.console import run_command

HELP = """\
Benchmark and ablation harness for ensemble knowledge distillation.

one run      python -m harness [OPTION=VALUE ...]
a sweep      python -m harness -m method=all seed=0,1,2 [OPTION=VALUE,VALUE ...]
on SLURM     python -m harness -m method=all seed=0,1,2 hydra/launcher=submitit_slurm
a study      python -m harness -m +sweep=NAME
             python -m harness.study +sweep=NAME    that stops when its question is answered

method       {variants}
             groups, with -m: {groups}
data         {data}
train        {train}
model        preresnet_tiny, preresnet20, wrn16_2, wrn28_4, wrn28_10 and their like
teachers     teachers.size=4 (how many), teachers.set=0 (which disjoint set), teachers.model=NAME
seed         any integer; equal seeds pair runs across methods
runs=FOLDER  where results go (default: runs)    device=auto|cpu|cuda    force=true runs again what is done

every option python -m harness --cfg job
afterwards   python -m harness.status runs       what runs, waits, failed
             python -m analysis runs             tables, tests, verdicts
             python -m harness.track runs --to tensorboard|wandb|mlflow    curves and results there
Hydra's own options: --hydra-help
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        # Answered here, so that help does not wait for torch.
        import methods

        listed = {group: ", ".join(names) or "-" for group, names in methods.groups().items()}
        groups = "; ".join(f"{group} ({names})" for group, names in listed.items() if group != "all")
        from harness.config.options import DATA, TRAIN

        print(
            HELP.format(
                variants=listed["all"],
                groups=f"all; {groups}",
                data=", ".join(DATA),
                train=", ".join(TRAIN),
            ),
            end="",
        )
        return 0
    if "--version" in arguments:
        print(__version__)
        return 0
    from harness.app import run

    return run(arguments)


if __name__ == "__main__":
    run_command(main)
