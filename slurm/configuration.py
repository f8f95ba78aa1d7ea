"""The configuration files of the one-machine cluster: what slurm.lab writes into its folder."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from slurm.errors import LabError, show
from slurm.files import make_directory, write_own
from slurm.processes import CLUSTER

# cred_expire: a requeued job waits for it; the usual two minutes would dominate every preemption test.
# preempt_send_user_signal: a preempted job gets the signal it asked for (submitit: USR2), not only SIGTERM.
# OverMemoryKill: without cgroups, the accounting poll is what enforces --mem.
SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={memory_per_cpu}
SlurmdParameters=config_overrides
SlurmdTimeout={node_timeout}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
KillWait={kill_wait}
MinJobAge=600
FirstJobId={first_job}
MaxArraySize={max_array_size}
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=sched_min_interval=0,bf_interval=1,batch_sched_delay=0
{accounting_lines}{gpu_lines}\
NodeName=n[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first_node_port}-{last_node_port}] \
CPUs={cpus} RealMemory={memory}{node_gpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace_time}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
{setting_lines}"""

ACCOUNTING_LINES = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_port}
AccountingStoragePass={folder}/run/munge.sock
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
CommunicationParameters=NoInAddrAny
DbdAddr=127.0.0.1
DbdHost=localhost
DbdPort={database_port}
SlurmUser={user}
PidFile={folder}/run/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""


# What stop and the lab's own programs rely on: where things are, who runs them, how they are reached.
FIXED = {"nodename"} | {
    key.lower()
    for key, value in re.findall(r"^(\w+)=(.*)$", SLURM_CONF + ACCOUNTING_LINES, re.MULTILINE)
    if re.search(r"\{(folder|user|cluster|\w*port)\}|127\.0\.0\.1", value)
}


def _option(default: int, text: str, least: int = 0, most: int = 65_533) -> Any:
    return field(default=default, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True)
class Shape:
    """What a cluster looks like. The integers are also the options of ``slurm.lab start``.

    Raises:
        LabError: a number is out of bounds, or a setting would be more than a line of slurm.conf, or one of the lab's.
    """

    nodes: int = _option(4, "number of nodes", 1, 500)
    cpus: int = _option(4, "cores a node", 1)
    gpus: int = _option(2, "GPUs a node", 0, 128)
    memory: int = _option(16_000, "MB a node; declared, not reserved", 1, 1 << 31)
    memory_per_cpu: int = _option(2_000, "MB a core for jobs that ask for no memory (DefMemPerCPU)", 0, 1 << 31)
    max_array_size: int = _option(1_001, "largest array index plus one (MaxArraySize)", 1, 4_000_001)
    grace_time: int = _option(30, "seconds from the warning to the end of a preempted job (GraceTime)")
    kill_wait: int = _option(5, "seconds from SIGTERM to SIGKILL (KillWait)")
    node_timeout: int = _option(15, "seconds until a silent node is down (SlurmdTimeout)")
    accounting: bool = True  # without it sacct fails, and submitit never learns that a job died
    settings: Mapping[str, str] = field(default_factory=dict)  # further lines of slurm.conf

    def __post_init__(self) -> None:
        for option in fields(self):
            value, bounds = getattr(self, option.name), option.metadata
            if bounds and (type(value) is not int or not bounds["least"] <= value <= bounds["most"]):
                wanted = f"a number from {bounds['least']} to {bounds['most']}"
                raise LabError(f"--{option.name.replace('_', '-')} {show(value)}: give {wanted}")
        for key, value in self.settings.items():
            _check_setting(str(key), str(value))


def _check_setting(key: str, value: str) -> None:
    """One line of slurm.conf stays one line, and does not undo the lab's own."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
        raise LabError(f"--set {show(key)}: an option's name has letters, digits and _ only")
    if not value.isprintable() or "#" in value or "\\" in value:
        raise LabError(f"--set {key}={show(value)}: one line of slurm.conf, without # or \\")
    for name in re.findall(r"(\w+)\s*=", f"{key}={value}"):  # one line may set several
        if name.lower() in FIXED:
            raise LabError(f"--set {name}: the lab sets it itself, and relies on it")


def write_configuration(folder: Path, shape: Shape) -> None:
    """Write slurm.conf and its companions, keys and devices into ``folder``, for ports that are free now."""
    for name in ("run", "state", "log", "dev", *(f"spool-n{i + 1}" for i in range(shape.nodes))):
        make_directory(folder / name)
    make_directory(folder / "db", 0o700)  # whoever enters it is the database's root
    for index in range(shape.gpus):
        device = folder / "dev" / f"nvidia{index}"
        device.unlink(missing_ok=True)
        device.symlink_to(os.devnull)
    values = _values(folder, shape)
    write_own(folder / "slurm.conf", SLURM_CONF.format(**values), 0o644)
    write_own(folder / "munge.key", secrets.token_bytes(128))
    write_own(folder / "slurmdbd.conf", SLURMDBD_CONF.format(**values))
    write_own(folder / "cgroup.conf", "CgroupPlugin=cgroup/v1\n", 0o644)
    gres = "NodeName=n[1-{nodes}] Name=gpu File={folder}/dev/nvidia[0-{last_gpu}]\n" if shape.gpus else ""
    write_own(folder / "gres.conf", gres.format(**values), 0o644)


def _values(folder: Path, shape: Shape) -> dict[str, Any]:
    """What the templates' names stand for."""
    port = _free_ports(shape.nodes + 2)
    values = {
        **asdict(shape),
        "cluster": CLUSTER,
        "folder": folder,
        "user": user_name(),
        "port": port,
        "database_port": port + 1,
        "first_node_port": port + 2,
        "last_node_port": port + 1 + shape.nodes,
        # Job ids are part of the paths in a sweep's folder: a fresh lab must not give old ones again.
        "first_job": int(time.time()) % 10_000_000 + 1,
        "last_gpu": shape.gpus - 1,
        "gpu_lines": "GresTypes=gpu\n" if shape.gpus else "",
        "node_gpus": f" Gres=gpu:{shape.gpus}" if shape.gpus else "",
        "setting_lines": "".join(f"{key}={value}\n" for key, value in shape.settings.items()),
    }
    values["accounting_lines"] = ACCOUNTING_LINES.format(**values) if shape.accounting else ""
    return values


def user_name() -> str:
    """The name of the user that we are; SLURM wants names."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise LabError(f"user id {os.getuid()} has no name on this machine, and SLURM needs one") from None
    if not re.fullmatch(r"[\w.@-]+\$?", name):
        raise LabError(f"SLURM's configuration cannot hold the name of the user that you are, {show(name)}")
    return name


def _free_ports(count: int) -> int:
    """The first of ``count`` consecutive free ports, below those that outgoing connections are given."""
    for _ in range(100):
        first = 10_000 + secrets.randbelow(20_000)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise LabError(f"no {count} consecutive free ports between 10000 and 30000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
