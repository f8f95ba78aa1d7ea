"""Heads that die while they submit, on a real cluster: in the end every run has one job, and its head knows it.

The jobs are held, so that none of them begins.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config import ConfigError
from harness.jobs import array
from harness.jobs.queue import QueueUnreachable
from harness.jobs.slurm import Slurm
from harness.runtime.console import Console
from harness.store import claim
from harness.store.claim import TakenOver
from harness.store.identity import run_directory
from harness.store.submission import read_submission, write_submission
from harness.sweep.submission import Submitter
from slurm.lab import Lab
from tests.damage import MANY
from tests.heads import wait_for
from tests.running import configure

pytestmark = pytest.mark.slurm
CHANGES = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "subprocess.Popen")
# Where a head stands still: before it looks for old notes, within its own, before sbatch, after it. HARNESS_FUZZ: anywhere.
STOPS = range(42) if MANY else (5, 33, 36, 39)
Todo = dict[Path, dict[str, Any]]


@pytest.fixture
def held(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The cluster, as this process sees it, and without the jobs in the end. A `sbatch` in tmp_path/bin goes first."""
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    yield lab
    for job in {job.partition("_")[0] for job in jobs_of(lab, tmp_path)}:
        lab.run("scancel", job)


def two_runs(runs: Path, number: int = 0) -> Todo:
    configs = [configure(runs, "supervised", seed=2 * number + k) for k in range(2)]
    return {run_directory(config): config for config in configs}


def submit(runs: Path, todo: Todo) -> dict[Path, str]:
    """What a head does; returns the jobs that it then knows."""
    shape = {"submitit_folder": f"{runs}/.submitit/%j", "timeout_min": 5, "additional_parameters": {"hold": True}}
    backend = Slurm(lambda directory: shape, runs, 1, 1.0)
    Submitter(runs, backend, Console()).submit(todo)
    return backend.jobs


def jobs_of(lab: Lab, runs: Path) -> dict[str, Path]:
    """The run of every job in the queue, whatever its head knows of it."""
    found = {}
    for line in lab.run("squeue", "--noheader", "--array", "--format=%i|%o").splitlines():
        job, _, script = line.partition("|")
        if Path(script).is_relative_to(runs):
            packs = json.loads((Path(script).parent / "array.json").read_text())["packs"]
            found[job] = Path(packs[int(job.partition("_")[2])][0]).parent
    return found


def check(lab: Lab, runs: Path, todo: Todo, known: dict[Path, str]) -> None:
    """Fail unless each run has one job, and that is known, here and to whoever comes later."""
    found = {job: directory for job, directory in jobs_of(lab, runs).items() if directory in todo}
    assert Counter(found.values()) == dict.fromkeys(todo, 1)
    assert {found[job]: job for job in found} == known
    assert {directory: read_submission(directory)["job_id"] for directory in todo} == known


def replace_sbatch(folder: Path, script: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text(f"#!/bin/sh\nPATH=${{PATH#*:}}\n{script}\n")
    (folder / "bin" / "sbatch").chmod(0o755)


def begin(target: Callable[..., None], *arguments: Any) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def submit_under(number: signal.Signals, runs: Path, todo: Todo, at: int) -> None:
    """Get a signal before the change of that number, counted from the head's claim on."""
    changes: list[str] = []

    def note(event: str, about: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(about[2], int) and about[2] & (os.O_WRONLY | os.O_RDWR))
        if event in CHANGES and writes and (changes or ".submission" in str(about[0])):
            changes.append(event)
            if len(changes) == at + 1:
                os.kill(os.getpid(), number)

    sys.addaudithook(note)
    submit(runs, todo)


def test_a_head_killed_at_any_write_leaves_one_job_a_run(held: Lab, tmp_path: Path) -> None:
    died = 0
    while True:
        todo = two_runs(tmp_path, died)
        head = begin(submit_under, signal.SIGKILL, tmp_path, todo, died)
        head.join()
        check(held, tmp_path, todo, submit(tmp_path, todo))
        if head.exitcode == 0:
            break
        assert head.exitcode == -signal.SIGKILL
        died += 1
    assert died > 15


@pytest.mark.parametrize("at", STOPS)
def test_a_head_that_stood_still_gives_no_run_a_second_job(
    held: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Its claim is too old, and a second one goes on without it; then it goes on, too."""
    for module, name, value in ((claim, "BEAT_S", 0.1), (claim, "STALE_S", 0.5), (array, "SUBMITTING_S", 0.2)):
        monkeypatch.setattr(module, name, value)
    todo = two_runs(tmp_path)
    head = begin(submit_under, signal.SIGSTOP, tmp_path, todo, at)
    os.waitpid(head.pid, os.WUNTRACED)
    known = submit(tmp_path, todo)
    with contextlib.suppress(ProcessLookupError):  # it never came that far
        os.kill(head.pid, signal.SIGCONT)
    head.join()
    check(held, tmp_path, todo, known)


def test_a_head_waits_for_the_sbatch_of_a_dead_one(held: Lab, tmp_path: Path) -> None:
    replace_sbatch(tmp_path, f"touch {tmp_path}/begun; sleep 1; exec sbatch $@")
    todo = two_runs(tmp_path)
    head = begin(submit, tmp_path, todo)
    wait_for((tmp_path / "begun").exists, "sbatch")
    head.kill()
    head.join()
    check(held, tmp_path, todo, submit(tmp_path, todo))


def test_what_sbatch_says_it_lost_is_looked_for(held: Lab, tmp_path: Path) -> None:
    """A busy controller takes a job and answers too late; the runs have been jobs before, and have notes of that."""
    replace_sbatch(tmp_path, "sbatch $@; echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1")
    todo = two_runs(tmp_path)
    for directory in todo:
        write_submission(directory, "1", "an earlier job's")
    with pytest.raises(QueueUnreachable, match="timed out"):
        submit(tmp_path, todo)
    check(held, tmp_path, todo, submit(tmp_path, todo))


def test_a_refused_array_leaves_nothing(held: Lab, tmp_path: Path) -> None:
    replace_sbatch(tmp_path, "exec sbatch --partition=none $@")
    todo = two_runs(tmp_path)
    with pytest.raises(ConfigError, match="invalid partition"):
        submit(tmp_path, todo)
    assert not jobs_of(held, tmp_path)
    assert [read_submission(directory) for directory in todo] == [None, None]
    assert not list((tmp_path / ".submitit").iterdir())


def test_a_head_that_was_given_up_takes_its_jobs_back(held: Lab, tmp_path: Path) -> None:
    """It stood still for so long that another one went on without it."""
    given_up = """echo '{"job_id": null}' > $(dirname "$1")/job.json"""
    replace_sbatch(tmp_path, f"sbatch $@; {given_up}")
    todo = two_runs(tmp_path)
    with pytest.raises(TakenOver, match="another command"):
        submit(tmp_path, todo)
    assert not jobs_of(held, tmp_path)
    (tmp_path / "bin" / "sbatch").unlink()
    check(held, tmp_path, todo, submit(tmp_path, todo))
