"""What SLURM says of jobs: squeue for those that wait or run, sacct (or scontrol) for how one ended."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.jobs import environment

LIVE = {
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESIZING", "RESV_DEL_HOLD"),
}
SAID_BY_SLURM = ("srun: ", "slurmstepd: ")
MEMORY = re.compile(r"oom[-_ ]kill|out of memory|exceeded memory limit", re.IGNORECASE)


class QueueUnreachable(RuntimeError):
    """SLURM did not answer; nothing is known about its jobs."""


@dataclass(frozen=True)
class Ending:
    """How a job ended: a state such as FAILED, TIMEOUT, NODE_FAIL, its exit code (code:signal) and node."""

    state: str
    exit_code: str
    node: str


@dataclass(frozen=True)
class Standing:
    """What SLURM holds of a job that runs: its state, when its time is up (seconds since the epoch; infinity: never), and
    whether it has to give way to another.
    """

    state: str
    ends: float
    preempted: bool


def available() -> bool:
    """Whether this machine can talk to a SLURM."""
    return shutil.which("squeue") is not None


def live_jobs(jobs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """State and node (or the reason for waiting) of those jobs (JOB or ARRAY_TASK) that have not ended.

    Raises QueueUnreachable where SLURM does not answer.
    """
    wanted = set(jobs)
    arrays = sorted({job.partition("_")[0] for job in wanted})
    if not arrays:
        return {}
    # All jobs of this user in one question: ids that SLURM has forgotten would make it refuse the whole list.
    found = ask("squeue", "--noheader", "--all", "--array", f"--user={os.getuid()}", "--format=%i|%T|%R")
    rows = (line.split("|", 2) for line in found.splitlines())
    return {job: (state, where) for job, state, where in rows if job in wanted and state in LIVE}


def find(marks: Iterable[str]) -> dict[str, str]:
    """The jobs (of an array: the array) of this user that have not ended, by the one of these marks that stands in their
    comment or command. Raises QueueUnreachable.
    """
    wanted, found = set(marks), {}
    if wanted:
        said = ask("squeue", "--noheader", "--all", "--array", f"--user={os.getuid()}", "--format=%i|%k|%o")
        for line in said.splitlines():
            job = line.partition("|")[0].partition("_")[0]
            found |= {mark: job for mark in wanted if mark in line}
    return found


def ending(job: str) -> Ending:
    """How a job that left the queue ended; state UNKNOWN where nobody remembers."""
    return accounted([job]).get(job) or remembered(job)


def accounted(jobs: Iterable[str]) -> dict[str, Ending]:
    """How jobs ended, of those whose end the accounting knows by now; it lags behind, and some clusters have
    none.
    """
    found: dict[str, Ending] = {}
    wanted = sorted(jobs)
    for start in range(0, len(wanted), 500):
        few = ",".join(wanted[start : start + 500])
        try:
            rows = ask("sacct", "-n", "-P", "-X", "-j", few, "-o", "JobID,State,ExitCode,NodeList")
        except QueueUnreachable:
            break
        for row in rows.splitlines():
            job, state, code, node = row.split("|")
            if state.split()[0] not in LIVE:
                found[job] = Ending(state.split()[0], code, "" if node == "None assigned" else node)
    return found


def remembered(job: str) -> Ending:
    """What the controller, which forgets after some minutes, remembers of a job's end."""
    try:
        facts = facts_of(ask("scontrol", "--oneliner", "show", "job", job))
    except QueueUnreachable:
        return Ending("UNKNOWN", "", "")
    node = facts.get("NodeList", "").removeprefix("(null)")
    return Ending(facts.get("JobState", "UNKNOWN"), facts.get("ExitCode", ""), node)


def standing(job: str) -> Standing:
    """How a job that runs stands with SLURM. Raises QueueUnreachable."""
    facts = facts_of(insist("scontrol", "--oneliner", "show", "job", job))
    ends, preempted = facts["EndTime"], facts.get("PreemptTime", "None")
    return Standing(facts["JobState"], float(ends) if ends.isdecimal() else math.inf, preempted != "None")


def facts_of(shown: str) -> dict[str, str]:
    """What `scontrol show job` shows, by name."""
    return dict(re.findall(r"(\w+)=(\S*)", shown))


def requeue(job: str) -> None:
    """Ask SLURM to run a job again; a running one is killed soon after. Raises QueueUnreachable."""
    insist("scontrol", "requeue", job)


def cancel(jobs: Iterable[str]) -> None:
    jobs = sorted(jobs)
    for start in range(0, len(jobs), 500):
        ask("scancel", *jobs[start : start + 500])


def largest_array() -> int:
    """MaxArraySize: the number of tasks that one array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return max(1, int(found[1])) if found else 1001


def explain(end: Ending, log: Path | None, memory_option: str) -> str:
    """One line on how a job ended: its state, out of memory where the log says so (SLURM does not always), and which option
    grants more, else the log's last line.
    """
    said = f"SLURM says {end.state}" + (f" (exit {end.exit_code})" if end.exit_code else "")
    if end.state == "OUT_OF_MEMORY" or MEMORY.search(tail(log)):
        return f"{said}: out of memory; give runs more with {memory_option}"
    return said + last_words(log)


def last_words(log: Path | None) -> str:
    """How a message goes on with the last line of a log, where there is one."""
    lines = [line.strip() for line in tail(log).splitlines() if line.strip() and not line.startswith(SAID_BY_SLURM)]
    return f"; its log ends: {lines[-1][:300]}" if lines else ""


def tail(log: Path | None, size: int = 20_000) -> str:
    """The end of a log; empty where there is none."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode(errors="replace")


def ask(*command: str) -> str:
    """What a client of SLURM prints. Raises QueueUnreachable where it fails."""
    try:
        done = subprocess.run(
            command,
            env=environment.for_questions(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise QueueUnreachable(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise QueueUnreachable(f"{' '.join(command[:3])}: {said[-1]}")  # the last line is the outcome
    return done.stdout


def insist(*command: str) -> str:
    """As `ask`; a busy controller is asked again."""
    for _ in range(4):
        try:
            return ask(*command)
        except QueueUnreachable:
            time.sleep(2)
    return ask(*command)
