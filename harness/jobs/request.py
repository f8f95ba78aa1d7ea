"""What the job of a run asks of the cluster: the launcher's options, refused in one line before anything is submitted."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.config import ConfigError
from harness.jobs.backend import Config, Shape
from harness.run.checks import validate_shares
from harness.run.names import guess

SBATCHS = {"timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks_per_node", "name": "job_name"}
# A run has `nodes` x `tasks_per_node` tasks, however else they could be asked for.
ONE = ("ntasks", "ntasks_per_core", "ntasks_per_socket", "ntasks_per_gpu")
# What the harness says itself, or relies on.
OURS = {
    **dict.fromkeys(("array", "error", "output", "open_mode", "parsable", "wait", "wrap", "test_only"), ""),
    "signal": "; hydra.launcher.signal_delay_s=SECONDS is how long before the end jobs are warned",
    "no_requeue": "; hydra.launcher.max_num_timeout=0 is for runs that are not to go on after their limit",
    "clusters": "; jobs are of the cluster that SLURM_CONF names",
}
LISTS = ("setup", "teardown", "srun_args")
GPUS = ("gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket", "num_gpus")
PATTERNS = ("%j", "%A", "%a", "%t")  # which submitit_folder may have


def options(shape: Shape) -> dict[str, Any]:
    """All that is asked for, by sbatch's names with _ for -; additional parameters count most."""
    named = {SBATCHS.get(name, name): value for name, value in shape.items() if name != "additional_parameters"}
    named |= additional(shape)
    return {name: value for name, value in named.items() if value is not None}


def additional(shape: Shape) -> dict[str, Any]:
    """The additional parameters, as submitit names those that it knows; what is null or false is not asked for."""
    given = shape.get("additional_parameters") or {}
    return {name.replace("-", "_"): value for name, value in given.items() if value is not None and value is not False}


def check_names(shape: Shape) -> None:
    """Raise ConfigError, with the nearest name, for an option that a launcher which the harness stands in for has not."""
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

    slurms = {*(field.name for field in fields(SlurmQueueConf)), *submitit.SlurmExecutor._valid_parameters(), "python"}
    locals_ = {field.name for field in fields(LocalQueueConf)}
    known = {"SlurmLauncher": slurms, "LocalLauncher": locals_, "BasicLauncher": {"_target_"}}
    launcher = shape["_target_"].rpartition(".")[2]
    for name in shape:
        if name not in known.get(launcher, shape):
            raise ConfigError(f"hydra.launcher.{name}: the launcher has no such option{guess(name, known[launcher])}")


def check(shape: Shape, config: Config) -> None:
    """Raise ConfigError for jobs of SLURM that ask for what the harness says itself, or for what runs of this
    configuration could not use.
    """
    if ":" in config["device"]:
        raise ConfigError(f"device={config['device']} on SLURM, which chooses the GPUs of a job: use device=cuda")
    asked = options(shape)
    for name in filter(asked.__contains__, OURS):
        raise ConfigError(f"{spelled(name, shape)}: that is the harness's own to say{OURS[name]}")
    for name in ONE:
        if str(asked.get(name, 1)) not in ("1", "1-1"):
            raise ConfigError(
                f"{spelled(name, shape)}={asked[name]}: a run's tasks are hydra.launcher.nodes times "
                "hydra.launcher.tasks_per_node"
            )
    if config["devices"] > 1:
        raise ConfigError(
            f"devices={config['devices']} is for one machine: on SLURM a run has hydra.launcher.tasks_per_node devices a node"
        )
    per_node = check_tasks(asked, shape, config)
    for name in LISTS:
        if not isinstance(asked.get(name, []), list):
            raise ConfigError(f"{spelled(name, shape)}={asked[name]}: must be a list, [...]")
    check_gpus(count_gpus(asked), config["sweep"]["pack"], per_node, config["device"])
    check_path("runs", str(Path(config["runs"]).resolve()))
    folder = str(shape["submitit_folder"])
    for pattern in PATTERNS:
        folder = folder.replace(pattern, "")
    check_path("hydra.launcher.submitit_folder", folder)


def check_tasks(asked: dict[str, Any], shape: Shape, config: Config) -> int:
    """A node's tasks. Raise ConfigError for tasks that a run could not share its batches among."""
    counts = []
    for name in ("nodes", "ntasks_per_node"):
        number = str(asked.get(name, 1))
        number = "1" if number == "1-1" else number
        if not number.isdecimal() or int(number) < 1:
            raise ConfigError(f"{spelled(name, shape)}={asked[name]}: must be a number, at least 1")
        counts.append(int(number))
    nodes, per_node = counts
    if nodes * per_node > 1 and config["sweep"]["pack"] > 1:
        raise ConfigError(
            f"sweep.pack={config['sweep']['pack']} puts several runs into a job, nodes={nodes} and tasks_per_node={per_node} "
            "several jobs' worth into a run: give one of the two"
        )
    validate_shares(config, nodes * per_node)
    return per_node


def check_gpus(gpus: int, pack: int, tasks: int, device: str) -> None:
    """Raise ConfigError for a node's GPUs of which its runs, or the tasks of its run, so many, would leave some idle."""
    if gpus and device == "cpu":
        raise ConfigError(
            f"device=cpu uses no GPU, and a job asks for {gpus}: hydra.launcher.gpus_per_node=null for none"
        )
    if tasks > 1 and gpus and gpus != tasks:
        raise ConfigError(
            f"a node's {tasks} tasks have {gpus} GPUs, and need one each: hydra.launcher.gpus_per_node={tasks}"
        )
    if gpus > max(pack, tasks):
        raise ConfigError(
            f"a job asks for {gpus} GPUs, and each of its runs (sweep.pack={pack}) uses one: sweep.pack={gpus} uses all, "
            f"hydra.launcher.gpus_per_node={pack} asks for no more"
        )


def check_path(option: str, path: str) -> None:
    """Raise ConfigError for what SLURM would not take literally in the path of a log."""
    if "%" in path or "\\" in path or not path.isprintable():
        raise ConfigError(f"{option}={path!r}: SLURM cannot have % or \\ in its logs' folder; choose another")


def spelled(name: str, shape: Shape) -> str:
    """An option of sbatch as the launcher calls it."""
    if name in additional(shape):
        return f"hydra.launcher.additional_parameters.{name}"
    return f"hydra.launcher.{next((ours for ours, its in SBATCHS.items() if its == name and ours in shape), name)}"


def count_gpus(asked: dict[str, Any]) -> int:
    """GPUs of a job on one node, by whichever option asks for most."""
    generic = [entry for entry in str(asked.get("gres", "")).split(",") if "gpu" in re.split("[:/]", entry)[:2]]
    lists = [generic, *(str(asked.get(name, 0)).split(",") for name in GPUS)]
    return max(sum(map(count, entries)) for entries in lists)


def count(entry: str) -> int:
    """Of N, KIND:N, KIND (which is one), and the like: N."""
    number = entry.partition("(")[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else 1
