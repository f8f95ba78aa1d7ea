"""`python -m harness`: one run, or with `-m` a sweep. See HELP."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from harness import __version__
from harness.runtime.console import complain, run_command

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

every option python -m harness --cfg job        Hydra's own: --hydra-help
in a shell   python -m harness --completion bash > FILE; source FILE    completes options and their values
in Python    harness.run(method="kd", seed=0), harness.sweep(method="all", seed=[0, 1])

other commands, each with --help:
{commands}
  python -m analysis [report|compare|regress ...] [RUNS]
      tables, tests, verdicts, figures, one page of all
  python -m slurm.lab start|stop
      a real SLURM on this machine, to try things on
"""
DESCRIBED = re.compile(r'"""`python -m (harness\.[^`]+)`: (.+)')  # how a command's file begins


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        # Answered here, so that help does not wait for torch.
        import methods

        listed = {group: ", ".join(names) or "-" for group, names in methods.groups().items()}
        groups = "all; " + "; ".join(f"{group} ({names})" for group, names in listed.items() if group != "all")
        from harness.config.options import DATA, TRAIN

        print(
            HELP.format(
                variants=listed["all"],
                groups=textwrap.fill(groups, 100, subsequent_indent=" " * 31),
                data=", ".join(DATA),
                train=", ".join(TRAIN),
                commands="\n".join(f"  python -m {usage}\n      {does}" for usage, does in commands().items()),
            ),
            end="",
        )
        return 0
    if "--completion" in arguments:
        return complete(arguments[arguments.index("--completion") + 1 :])
    if "--version" in arguments:
        print(__version__)
        return 0
    from harness.app import run

    return run(arguments)


def commands() -> dict[str, str]:
    """What each of the other commands does, by how it is called; as their files begin, which are not imported."""
    here = Path(__file__).parent
    files = sorted([*here.glob("*.py"), *here.glob("*/__main__.py")])
    found = [DESCRIBED.match(file.read_text(encoding="utf-8")) for file in files]
    return {said[1]: said[2].removesuffix('"""').rstrip(".") for said in found if said}


def complete(shells: list[str]) -> int:
    """Print what a shell reads to complete command lines; returns the exit status."""
    from harness.completion import script
    from harness.config import ConfigError

    names = dict.fromkeys(usage.split()[0] for usage in commands())
    try:
        print(script(" ".join(shells), ["harness", *names, "analysis", "slurm.lab"]), end="")
    except ConfigError as error:
        complain(error)
        return 2
    return 0


if __name__ == "__main__":
    run_command(main)
