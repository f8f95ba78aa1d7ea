"""Whether this machine has the programs that a lab is made of."""

from __future__ import annotations

import os
import shutil

from slurm.errors import LabError

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}


class NotInstalledError(LabError):
    """SLURM's daemons are not installed on this machine."""


def check_installed(accounting: bool = True) -> None:
    """Raise NotInstalledError, with the line that installs what is missing, unless a lab can start here."""
    programs = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        raise NotInstalledError(
            f"SLURM is not installed on this machine (no {', '.join(missing)}). On Debian or Ubuntu:\n"
            "  sudo apt-get update && sudo DEBIAN_FRONTEND=noninteractive "
            f"apt-get install --yes --no-install-recommends {' '.join(programs.values())}"
        )
