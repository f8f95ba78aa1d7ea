"""A sweep: plan, teachers, students, table, list of what failed. Everything that it knows is on disk.

So it may be killed at any time: the same command reads what is there and goes on, and jobs that still run are
adopted, not submitted again.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from harness import memory, queue
from harness.claim import Claim, Claimed
from harness.cluster import Backend, Local, Shape, Slurm, pack_jobs, visible_gpus
from harness.config import ConfigError, is_teacher, run_directory
from harness.interruption import StopRequest
from harness.plan import Plan, estimate_hours, is_finished, make_plan, teacher_configs
from harness.progress import Bar, Console, duration
from harness.queue import QueueUnreachable
from harness.record import DamagedRecord, answers, bring_back, forget_aside, read_record, set_aside, settled
from harness.summary import sweep_table
from harness.watch import Watch, outcome, pause

Config = dict[str, Any]
STOPPED = 130


class Sweep:
    """The runs of one command line. `jobs` are the same runs as Hydra overrides, for launchers that want those;
    `shapes` what each run's job asks of a cluster.

    Raises ConfigError where a run is asked for in two shapes.
    """

    def __init__(
        self,
        configs: list[Config],
        jobs: list[tuple[str, ...]],
        shapes: list[Shape],
        context: HydraContext,
        hydra_config: DictConfig,
        task_function: TaskFunction,
    ):
        self.configs, self.jobs = configs, jobs
        self.context, self.hydra_config, self.task_function = context, hydra_config, task_function
        self.options = configs[0]["sweep"]
        self.folder = Path(configs[0]["runs"])
        self.fail_fast = configs[0]["fail_fast"]
        self.plan = make_plan(configs)
        self.shapes = shapes_of_runs(configs, shapes)
        self.default_shape = shapes[0]
        self.console = Console()
        self.started = time.time()
        self.not_run: dict[Path, str] = {}  # students whose teacher failed
        self.teachers: dict[Path, str] = {}  # how those that were looked at have ended

    def run(self) -> int:
        """Run what is missing and report; returns the exit status."""
        if self.configs[0]["harness"]["plan"]:
            self.print_plan()
            return 0
        self.console.say(describe(self.plan))
        if not self.plan.students:
            return self.report()
        if self.options["detach"] and not self.launcher_is("SlurmLauncher"):
            raise ConfigError("sweep.detach=true needs SLURM: hydra/launcher=submitit_slurm, or a preset")
        if self.launcher_is("BasicLauncher") and self.options["pack"] == 1 and self.options["workers"] is None:
            status = self.run_here()
        elif self.launcher_is("SlurmLauncher"):
            try:
                status = self.run_on_slurm(Slurm(self.shape, self.folder, self.options["pack"], self.options["poll_s"]))
            except QueueUnreachable as error:
                raise ConfigError(f"SLURM does not answer: {error}") from error
        elif self.launcher_is("submitit_launcher.LocalLauncher") or self.launcher_is("BasicLauncher"):
            status = self.run_jobs(self.pool())
        else:
            status = self.run_by_plugin()
        self.console.close()
        return self.report() if status is None else status

    # One after the other in this process

    def run_here(self) -> int | None:
        """A run that fails is recorded and the next one starts. Like its siblings it returns None where the
        sweep has come to its report, else the exit status.
        """
        from harness.run import execute
        from harness.training import Interrupted

        todo = [*self.plan.teachers.values(), *self.plan.students.values()]
        bar = Bar(self.console, "sweep", len(todo))
        failed = 0
        with StopRequest() as stop:
            for done, config in enumerate(todo):
                bar.update(done, f"{done - failed} done, {failed} failed, {len(todo) - done} left")
                directory = run_directory(config)
                if reason := self.lacks_teacher(config):
                    self.not_run[directory] = reason
                    continue
                try:
                    record = execute(config, self.console, stop)
                    self.console.say(outcome(record, directory))
                    ended_well = record["status"] == "done"
                except Interrupted as error:
                    self.console.close()
                    self.console.say(f"{error}; the same command goes on from there")
                    return STOPPED
                except Claimed as error:
                    self.console.say(f"{directory.name}: left to others: {error}")
                    continue
                except ConfigError as error:
                    if settled(directory) is None:  # it is about this machine, not about this run
                        raise
                    self.console.say(f"{directory.name}: {error}")
                    ended_well = False
                except Exception as error:  # noqa: BLE001  the run recorded it; the others must not suffer
                    self.console.say(f"{directory.name}: {type(error).__name__}: {error}")
                    ended_well = False
                failed += not ended_well
                if failed and self.fail_fast:
                    break
        bar.close()
        return None

    # Processes of this machine

    def pool(self) -> Local:
        """As many at a time as the options say: on each GPU, or on the machine's cores, `sweep.pack`."""
        pack, workers = self.options["pack"], self.options["workers"]
        gpus = [] if self.configs[0]["device"] == "cpu" else visible_gpus()
        todo = [*self.plan.teachers.values(), *self.plan.students.values()]
        if pack > 1:
            pack, note = memory.most_together(todo, pack, gpus)
            if note:
                self.console.say(note)
            workers = pack * max(1, len(gpus))
        return Local(self.folder, workers or len(gpus) or max(1, (os.cpu_count() or 1) // 2), gpus)

    # Launchers of other plugins

    def run_by_plugin(self) -> None:
        """Hand the missing runs to Hydra's launcher; students then train the teachers they lack, under claims.

        Raises ConfigError for options that such a launcher cannot keep.
        """
        for option, chosen in (("sweep.pack", self.options["pack"] > 1), ("fail_fast", self.fail_fast)):
            if chosen:
                raise ConfigError(f"{option} needs another launcher: basic, submitit_local or submitit_slurm")
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.hydra_config
        )
        pairs = zip(self.jobs, self.configs, strict=True)
        launcher.launch([job for job, c in pairs if run_directory(c) in self.plan.students], initial_job_idx=0)

    # Jobs

    def run_on_slurm(self, backend: Slurm) -> int | None:
        if not self.options["detach"]:
            return self.run_jobs(backend)
        teachers = self.submit(backend, self.plan.teachers)
        students = 0 if backend.unsubmitted else self.submit(backend, self.plan.students, after=backend.arrays())
        if backend.unsubmitted:
            raise ConfigError(
                f"the queue has no room for {len(backend.unsubmitted)} more: {teachers} teachers and {students} students "
                "are submitted; without sweep.detach the same command waits for room"
            )
        self.console.say(f"submitted {teachers} teachers and {students} students: jobs {', '.join(backend.arrays())}")
        self.say_how_to_reattach()
        return 0

    def run_jobs(self, backend: Backend) -> int | None:
        """Teachers, then students, as jobs; waits for them, and lets none take another with it."""
        with StopRequest() as stop:
            for what, runs in (("teachers", self.plan.teachers), ("students", self.plan.students)):
                if what == "students":
                    self.not_run = {d: reason for d, c in runs.items() if (reason := self.lacks_teacher(c))}
                todo = {directory: config for directory, config in runs.items() if directory not in self.not_run}
                if not self.submit_patiently(backend, what, todo, stop):
                    self.console.say(f"stopped; no {what} are submitted")
                    return STOPPED
                watch = Watch(backend, self.console, what, todo)
                if not watch.follow(stop, self.fail_fast, lambda some: self.submit(backend, some, stop=stop)):
                    if not stop():
                        return None
                    self.leave(backend, watch)
                    return STOPPED
        return None

    def submit_patiently(self, backend: Backend, what: str, todo: dict[Path, Config], stop: StopRequest) -> bool:
        """Submit, and say so; False where `stop` came first. SLURM may be away, once it has taken jobs of this sweep."""
        new = 0
        while not stop():
            try:
                left = {place: todo[place] for place in backend.unsubmitted} or todo
                new += self.submit(backend, left, stop=stop)
                break
            except Claimed:
                return False
            except QueueUnreachable as error:
                if not backend.jobs:
                    raise
                self.console.say(f"SLURM does not answer ({error}); trying again")
                pause(stop, 10)
        else:
            return False
        before = len(todo) - new - len(backend.unsubmitted)
        taken = f", {before} were submitted before" if before else ""
        self.console.say(f"{what}: {new} submitted{taken}")
        if backend.unsubmitted:
            self.console.say(f"the queue takes no more: {len(backend.unsubmitted)} of them wait here until it does")
        return True

    def submit(
        self,
        backend: Backend,
        runs: dict[Path, Config],
        after: list[str] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Submit what is not finished by now and nobody is at; returns how many that were.

        One command at a time does this in a folder, so that two do not submit the same. A run that is not taken stays
        as it was. Raises Claimed where `stop` ends the wait for another one's turn, ConfigError, QueueUnreachable.
        """
        with Claim(self.folder / ".submission", until=stop):
            # What is done but knows too little may be the neighbour of runs that are still at work in its job.
            adopted = {directory for directory in backend.adopt(runs) if not is_done(directory)}
            todo = {
                directory: config
                for directory, config in runs.items()
                if directory not in adopted and (forced(config) or not is_finished(directory, config))
            }
            for directory, config in todo.items():
                set_aside(directory, anew=forced(config))
            try:
                if todo:
                    # The old result is forgotten here and once: a job that is requeued must not do it again.
                    backend.submit({place: {**config, "force": False} for place, config in todo.items()}, after)
            finally:
                for directory in todo:
                    (bring_back if directory in backend.unsubmitted else forget_aside)(directory)
            backend.unsubmitted -= runs.keys() - todo.keys()  # finished or submitted by others meanwhile
        return len(todo.keys() - backend.unsubmitted)

    def leave(self, backend: Backend, watch: Watch) -> None:
        """Say what happens to the jobs when this process goes away."""
        if backend.survives:
            left = len(watch.pending) - len(backend.unsubmitted)
            others = f"; {len(backend.unsubmitted)} found no room there yet" if backend.unsubmitted else ""
            others += "; students are not submitted yet" if watch.what == "teachers" else ""
            self.console.say(f"stopped watching; {left} {watch.what} stay with SLURM (scancel ends them){others}")
        else:
            watch.give_up_waiting()
            self.console.say(
                f"stopped; {watch.running()} {watch.what} that have started finish, the others do not start"
            )
        self.say_how_to_reattach()

    def say_how_to_reattach(self) -> None:
        once = ("sweep.detach=true", "force=true")
        command = shlex.join(argument for argument in sys.argv[1:] if argument not in once)
        self.console.say(f"to watch:    python -m harness.status {self.folder}")
        self.console.say(f"to reattach: python -m harness {command}")

    def lacks_teacher(self, config: Config) -> str | None:
        """Why a student cannot run, once teachers are trained: one of its own could not be."""
        for teacher in teacher_configs(config):
            directory = run_directory(teacher)
            if directory not in self.teachers:
                record = settled(directory)
                self.teachers[directory] = "missing" if record is None else record["status"]
            if self.teachers[directory] in ("failed", "diverged"):
                return f"not run: its teacher {directory.name} has {self.teachers[directory]}"
        return None

    # Report

    def print_plan(self) -> None:
        """What would run, without running it."""
        plan = self.plan
        self.console.say(describe(plan))
        for what, runs in (("teacher", plan.teachers), ("student", plan.students)):
            for directory in runs:
                self.console.say(f"{what}  {directory}")
        self.console.say(self.estimate())
        arrays = [
            f"{len(runs)} {what}{self.arrays(runs)}"
            for what, runs in (("teachers", plan.teachers), ("students", plan.students))
            if runs
        ]
        self.console.say(f"arrays: {', then '.join(arrays) or 'none'}")

    def estimate(self) -> str:
        """How long the device is busy, by the records of runs of the same kind."""
        hours, known, unit = estimate_hours(self.plan, self.folder)
        todo = len(self.plan.to_train())
        if not todo:
            return "about 0.00 hours"
        if not known:
            return "no estimate of the time: no record of such runs yet"
        return f"about {hours * todo / known:.2f} {unit} (by records of the kind of {known} of the {todo})"

    def arrays(self, runs: dict[Path, Config]) -> str:
        """Into which job arrays runs go, where SLURM can say it: one for each shape, or several if that is large."""
        if not self.launcher_is("SlurmLauncher") or not queue.available():
            return ""
        try:
            most = queue.largest_array()
        except QueueUnreachable as error:
            return f" (SLURM does not answer: {error})"
        groups = pack_jobs(runs, self.shape, self.options["pack"])
        count = sum(math.ceil(len(jobs) / most) for _, jobs in groups)
        said = [f"{count} array{'s' if count > 1 else ''}"]
        if self.options["pack"] > 1:
            said.append(f"{sum(len(jobs) for _, jobs in groups)} jobs of up to {self.options['pack']} runs")
        for shape, jobs in groups:
            if differs := ", ".join(f"{k}={v}" for k, v in shape.items() if any(s.get(k) != v for s, _ in groups)):
                said.append(f"{sum(map(len, jobs))} with {differs}")
        return f" ({'; '.join(said)})"

    def shape(self, directory: Path) -> Shape:
        return self.shapes.get(directory, self.default_shape)

    def launcher_is(self, name: str) -> bool:
        return self.hydra_config.hydra.launcher._target_.endswith(name)

    def report(self) -> int:
        """The table of what is done and the list of what is not; 0 where nothing is missing."""
        records, failures = [], []
        for directory, config in self.plan.runs.items():
            try:
                record = read_record(directory)
            except DamagedRecord as error:
                failures.append(f"{directory.name}: {error}")
                continue
            if record is not None and record["status"] == "done":
                records.append(record)
                if not answers(record, config["evaluate"]):
                    log = directory / "run.log"
                    failures.append(
                        f"{directory.name}: done, but without all of evaluate.shift and ood, which the same command adds; "
                        f"log {log}"
                    )
            elif directory in self.not_run:
                failures.append(f"{directory.name}: {self.not_run[directory]}")
            elif record is None:
                failures.append(f"{directory.name}: not run")
            else:
                log = record["error"]["log"] or directory / "run.log"
                failures.append(f"{directory.name}: {record['status']}: {record['error']['message']}; log {log}")
        if records:
            self.console.show(sweep_table(records))
        for reason in failures:
            self.console.say(f"missing  {reason}")
        self.console.say(
            f"{len(records)} of {len(self.plan.runs)} runs done in {self.folder}/ "
            f"({duration(time.time() - self.started)}); tests and verdicts: python -m analysis {self.folder}"
        )
        return 1 if failures else 0


def is_done(directory: Path) -> bool:
    record = settled(directory)
    return record is not None and record["status"] == "done"


def forced(config: Config) -> bool:
    """Whether a finished run is to run again; teachers never are."""
    return config["force"] and not is_teacher(config)


def shapes_of_runs(configs: list[Config], shapes: list[Shape]) -> dict[Path, Shape]:
    """What the job of each run asks for, where that is not the same for all; a teacher asks for what the first
    student does that needs it. Raises ConfigError where a run would be in two shapes.
    """
    found: dict[Path, Shape] = {}
    if all(shape is shapes[0] for shape in shapes):
        return found
    for config, shape in zip(configs, shapes, strict=True):
        directory = run_directory(config)
        earlier = found.setdefault(directory, shape)
        if differs := [key for key in shape if shape[key] != earlier.get(key)]:
            raise ConfigError(
                f"{directory.name} has two values of hydra.launcher.{differs[0]}; say which runs each is for, as in "
                '\'hydra.sweeper.arms=["model=wrn28_4 hydra.launcher.mem_gb=16","model=preresnet20"]\''
            )
    for config, shape in zip(configs, shapes, strict=True):
        for teacher in teacher_configs(config):
            found.setdefault(run_directory(teacher), shape)
    return found


def describe(plan: Plan) -> str:
    only = f" ({len(plan.trained)} of them trained before, only to be evaluated)" if plan.trained else ""
    return (
        f"{len(plan.runs)} runs: {len(plan.finished)} done before, {len(plan.students)} to run{only}, "
        f"{len(plan.teachers)} teachers to train first"
    )
