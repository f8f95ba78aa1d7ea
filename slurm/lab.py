"""A real SLURM cluster on one machine, for trying a sweep out and for tests.

    python -m slurm.lab start              # four nodes, each with four cores and two GPUs that nothing drives
    eval "$(python -m slurm.lab env)"      # sbatch, squeue, sacct and the harness talk to it from here on
    python -m slurm.lab stop

Nothing here imitates SLURM. The daemons of the distribution's own packages run from one throw-away folder,
listen on loopback only and on free ports, so several labs live side by side. Neither root nor systemd nor
cgroups are needed; without root, the cluster has one user: you. A GPU is a link to /dev/null, a character
device that SLURM can hand out: jobs get their own CUDA_VISIBLE_DEVICES as on any cluster, and a CUDA program
finds whatever the machine really has.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

from slurm.cluster import Lab
from slurm.configuration import Shape
from slurm.errors import LabError, show
from slurm.folder import require
from slurm.installation import NotInstalledError, check_installed
from slurm.remembered import choose, recall

__all__ = ["Lab", "LabError", "NotInstalledError", "Shape"]


def start_command(args: argparse.Namespace) -> None:
    """Start a cluster and say how to use it."""
    settings: dict[str, str] = {}
    for setting in args.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise LabError(f"--set {show(setting)}: not KEY=VALUE")
        if key in settings:
            raise LabError(f"--set {show(key)}: given twice")
        settings[key] = value
    shape = {name: value for name, value in vars(args).items() if name in Shape.__dataclass_fields__}
    shape["settings"] = settings
    # Before a folder is made that nobody would use.
    Shape(**shape)
    check_installed(args.accounting)
    lab = Lab(choose(_warn) if args.folder is None else args.folder, **shape)
    began = time.monotonic()
    fresh = lab.start()
    took = f"started in {time.monotonic() - began:.1f} s" if fresh else "is running already"
    print(f"{len(lab.node_names())} nodes in {lab.folder}: {took}. To use it from this shell, and to end it:")
    folder = "" if args.folder is None else f" {shlex.quote(str(lab.folder))}"
    print(f'  eval "$(python -m slurm.lab env{folder})"\n  python -m slurm.lab stop{folder}')


def stop_command(args: argparse.Namespace) -> None:
    """Stop a cluster; nothing happens where none runs."""
    folder = recall() if args.folder is None else args.folder
    if folder is None:
        print("no lab was started here without DIR: nothing to stop")
        return
    lab = Lab(folder)
    there = "" if os.path.lexists(lab.folder) else " (there is no such folder)"
    print(f"{show(lab.folder)}: {'stopped' if lab.stop() else 'was not running'}{there}")


def status_command(args: argparse.Namespace) -> None:
    """Show daemons, nodes and jobs."""
    lab = _running(args.folder)
    print(f"{lab.folder}: " + ", ".join(f"{name} (pid {pid})" for name, pid in lab.daemons().items()))
    print(lab.run("sinfo", "--Node", "--format=%5N %10P %8T %5c %7m %10G"))
    print(lab.run("squeue", "--format=%12i %10P %20j %10T %8M %R"), end="")


def env_command(args: argparse.Namespace) -> None:
    """Print the line that points a shell to the cluster."""
    print(export(_running(args.folder).conf))


def export(conf: Path) -> str:
    """The line for a shell, which evaluates it: no name may be more than a name in it."""
    return f"export SLURM_CONF={shlex.quote(str(conf))}"


def _running(named: str | None) -> Lab:
    """The lab in a folder that is to be trusted, as a shell is about to evaluate what is found there."""
    folder = recall() if named is None else named
    if folder is None:
        raise LabError("no lab was started here without DIR; `python -m slurm.lab start` starts one")
    lab = Lab(folder)
    if os.path.lexists(lab.folder):
        require(lab.folder)
    if "slurmctld" not in lab.daemons():
        argument = "" if named is None else f" {show(shlex.quote(named))}"
        raise LabError(f"no lab is running in {show(lab.folder)}; `python -m slurm.lab start{argument}` starts one")
    return lab


def _warn(text: str) -> None:
    print(f"slurm.lab: {text}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are those of Lab."""
    top = argparse.ArgumentParser(prog="python -m slurm.lab", description=__doc__.partition("\n")[0])
    commands = top.add_subparsers(required=True, metavar="start|stop|status|env")
    for function in (start_command, stop_command, status_command, env_command):
        name = function.__name__.removesuffix("_command")
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        where = "the lab's folder (without it: one of this user's on this machine, which is remembered)"
        command.add_argument("folder", nargs="?", metavar="DIR", help=where)
        if function is start_command:
            _add_shape(command)
    return top


def _add_shape(command: argparse.ArgumentParser) -> None:
    for option in fields(Shape):
        if "help" in option.metadata:
            name = "--" + option.name.replace("_", "-")
            text = f"{option.metadata['help']}; {option.default} if not given"
            command.add_argument(name, type=int, default=option.default, metavar="N", help=text)
    text = "leave out slurmdbd and MariaDB; sacct fails then, and submitit does not notice a job that dies"
    command.add_argument("--no-accounting", dest="accounting", action="store_false", help=text)
    text = "a further line of slurm.conf, such as OverTimeLimit=1; may be repeated"
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 on an error, 2 where SLURM is not installed."""
    args = parser().parse_args(arguments)
    try:
        args.function(args)
    except NotInstalledError as error:
        print(error, file=sys.stderr)
        return 2
    except (LabError, OSError, subprocess.TimeoutExpired) as error:
        _warn(str(error))
        if args.function is env_command:
            print("false")  # so that the eval fails too, and nothing after it talks to another cluster
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
