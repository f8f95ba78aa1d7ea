"""What cannot be asked of a cluster, or would be wasted, is refused in one line; what a shell says of jobs is said."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

from harness.config import ConfigError
from harness.jobs import request, shell
from tests.running import configure


def shape(**options: Any) -> dict[str, Any]:
    """A job's shape; `extra` are its additional parameters."""
    folder = {
        "submitit_folder": "/logs/.submitit/%j",
        "name": "harness",
        "additional_parameters": options.pop("extra", {}),
    }
    return asdict(SlurmQueueConf()) | folder | options


@pytest.fixture(autouse=True)
def _no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", *shell.DEFAULTS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"nodes": 2, "tasks_per_node": 2}, "train.batch_size=50 does not divide among 4 devices"),
        ({"tasks_per_node": 0}, "hydra.launcher.tasks_per_node=0: must be a number"),
        ({"extra": {"ntasks": "2"}}, "hydra.launcher.additional_parameters.ntasks=2: "),
        ({"extra": {"ntasks-per-node": 4}}, "train.batch_size=50 does not divide among 4 devices"),
        ({"tasks_per_node": 2, "gpus_per_node": 4}, "a node's 2 tasks have 4 GPUs, and need one each"),
        ({"extra": {"nodes": "1-4"}}, "hydra.launcher.additional_parameters.nodes=1-4: must be a number"),
        ({"gpus_per_node": 2}, "a job asks for 2 GPUs, and each of its runs (sweep.pack=1) uses one: sweep.pack=2"),
        ({"gpus_per_task": 2}, "a job asks for 2 GPUs"),
        ({"gres": "tmp:100,gpu:a100:2(S:0)"}, "a job asks for 2 GPUs"),
        ({"gres": "gres/gpu:2"}, "a job asks for 2 GPUs"),
        ({"gres": "gpu,gpu:h100:1"}, "a job asks for 2 GPUs"),
        ({"extra": {"gpus": "a100:1,h100:2"}}, "a job asks for 3 GPUs"),
        ({"extra": {"signal": "USR1@9"}}, "additional_parameters.signal: that is the harness's own to say; "),
        ({"extra": {"open-mode": "truncate"}}, "additional_parameters.open_mode: that is the harness's own to say"),
        ({"extra": {"no-requeue": True}}, "that is the harness's own to say; hydra.launcher.max_num_timeout=0"),
        ({"srun_args": "--mpi=none"}, "hydra.launcher.srun_args=--mpi=none: must be a list"),
        ({"submitit_folder": "/50%/%j"}, "hydra.launcher.submitit_folder='/50%/': SLURM cannot have %"),
    ],
)
def test_a_job_that_no_run_could_use_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        request.check(shape(**options), configure(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nodes": 1, "tasks_per_node": 1, "extra": {"ntasks": 1}},
        {"gpus_per_node": 2, "gres": "gpu:2", "setup": ["module load cuda"]},
        {"gpus_per_task": 1, "gres": "tmp:100G"},
        {"extra": {"gpus": "h100:1", "mail-type": "FAIL"}},
        {"extra": {"nodes": None, "no-requeue": False, "exclusive": False}},
        {"submitit_folder": "/logs/%A_%a"},
    ],
)
def test_other_jobs_are_not(tmp_path: Path, options: dict[str, Any]) -> None:
    request.check(shape(**options), configure(tmp_path, sweep__pack=2))


@pytest.mark.parametrize("device, message", [("cpu", "device=cpu uses no GPU"), ("cuda:1", "device=cuda:1 on SLURM")])
def test_a_gpu_that_its_runs_do_not_use_is_refused(tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        request.check(shape(gpus_per_node=1), configure(tmp_path, device=device))


@pytest.mark.parametrize("name", ["50%", "a%jb", "back\\slash", "two\nlines"])
def test_a_folder_that_slurm_would_read_as_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="SLURM cannot have % or"):
        request.check(shape(), configure(tmp_path / name))


@pytest.mark.parametrize(
    "launcher, name, message",
    [
        (
            "SlurmLauncher",
            "mail_typ",
            "hydra.launcher.mail_typ: the launcher has no such option; did you mean mail_type?",
        ),
        ("SlurmLauncher", "frobnicate", "hydra.launcher.frobnicate: the launcher has no such option"),
        ("LocalLauncher", "partition", "hydra.launcher.partition: the launcher has no such option"),
        ("BasicLauncher", "mem_gb", "hydra.launcher.mem_gb: the launcher has no such option"),
    ],
)
def test_an_option_that_a_launcher_does_not_have_is_refused(launcher: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        request.check_names({"_target_": f"somewhere.{launcher}", name: 1})
    assert str(caught.value) == message


def test_options_that_it_has_are_not() -> None:
    request.check_names(shape(python="apptainer exec image.sif python", mail_type="FAIL"))
    request.check_names({"_target_": "of.somebody.else.Launcher", "whatever": 1})


def test_where_a_job_goes_is_the_shells_to_say_if_the_launcher_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "fast")
    monkeypatch.setenv("SBATCH_ACCOUNT", "physics")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    asked = [shape(partition="long"), shape(extra={"partition": "long", "mail-type": "FAIL"})]
    given = [shell.complete(each) for each in asked]
    assert [request.options(each)["partition"] for each in given] == ["long", "long"]
    assert [request.options(each)["account"] for each in given] == ["physics", "physics"]
    assert request.options(given[1])["mail_type"] == "FAIL"
    assert request.options(given[0])["time"] == 60
    assert shell.describe(asked) == [
        "SBATCH_ACCOUNT=physics of this shell: taken, as hydra.launcher leaves it open",
        "SBATCH_PARTITION, SBATCH_TIMELIMIT, SLURM_CLUSTERS of this shell: not taken, hydra.launcher says what jobs ask for",
    ]
    assert shell.describe([*asked, shape()])[0].startswith(
        "SBATCH_ACCOUNT=physics, SBATCH_PARTITION=fast of this shell"
    )


def test_several_tasks_and_several_runs_are_not_both(tmp_path: Path) -> None:
    request.check(shape(nodes=2, tasks_per_node=5, gpus_per_node=5), configure(tmp_path))
    with pytest.raises(ConfigError, match=r"sweep\.pack=2 puts several runs into a job"):
        request.check(shape(tasks_per_node=2), configure(tmp_path, sweep__pack=2))
    with pytest.raises(ConfigError, match="devices=2 is for one machine"):
        request.check(shape(), configure(tmp_path, devices=2))
