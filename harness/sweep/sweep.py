"""A sweep: plan, teachers, students, table, list of what failed. Everything that it knows is on disk.

So it may be killed at any time: the same command reads what is there and goes on, and jobs that still run are
adopted, not submitted again.
"""

from __future__ import annotations

import copy
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from harness.config import ConfigError
from harness.config.brought import modules
from harness.jobs import memory, request, shell
from harness.jobs.backend import Backend, Shape
from harness.jobs.local import Local
from harness.jobs.queue import QueueUnreachable
from harness.jobs.slots import gpus_for, group
from harness.jobs.slurm import Slurm
from harness.run.folder import check_folders, make_writable
from harness.runtime import host
from harness.runtime.console import STOPPED, Bar, Console
from harness.runtime.interruption import Interrupted, StopRequest
from harness.store.claim import Claimed, TakenOver
from harness.store.identity import run_directory
from harness.store.record import settled
from harness.sweep.expansion import Job, quoted, to_override
from harness.sweep.hydra_options import check_used
from harness.sweep.plan import describe, make_plan
from harness.sweep.preview import describe_arrays, print_plan
from harness.sweep.report import Results, collect, show
from harness.sweep.shapes import launcher_of, shapes_of_runs, with_environment
from harness.sweep.submission import Submitter
from harness.sweep.watch import Watch, outcome

Config = dict[str, Any]
OWN = BASIC, LOCAL, SLURM = "BasicLauncher", "submitit_launcher.LocalLauncher", "SlurmLauncher"


class Sweep:
    """The runs of one command line. `jobs` are the same runs as Hydra overrides, for launchers that want those;
    `shapes` what each run's job asks of a cluster.

    Raises ConfigError where a run is asked for in two shapes.
    """

    def __init__(
        self,
        configs: list[Config],
        jobs: list[Job],
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
        check_folders(configs[0])
        self.plan = make_plan(configs)
        self.launcher = launcher_of(shapes)
        self.shapes = shapes_of_runs(self.plan, shapes)
        self.default_shape = shapes[0]
        self.environment = dict(hydra_config.hydra.job.env_set)
        self.console = Console()
        self.started = time.time()
        self.not_run: dict[Path, str] = {}  # students whose teacher failed
        self.tried: set[Path] = set()  # what this process itself was at
        self.teachers: dict[Path, str] = {}  # how those that were looked at have ended

    def run(self) -> int:
        """Run what is missing and report; returns the exit status."""
        if self.launcher_is(*OWN):
            check_used(self.hydra_config, self.context)
        with env_override(self.environment):
            return self.run_missing()

    def run_missing(self) -> int:
        self.check_options()
        self.check_jobs()
        if self.configs[0]["harness"]["plan"]:
            print_plan(self.plan, self.folder, self.console, not self.is_here(), self.describe_arrays)
            return 0
        self.console.say(describe(self.plan))
        if not self.plan.students:
            return self.report()
        make_writable(self.folder, "runs")
        if self.is_here():
            status = self.run_here()
        elif self.launcher_is(SLURM):
            try:
                options = self.options
                cluster = Slurm(self.shape, self.folder, options["pack"], options["poll_s"], self.modules())
                status = self.run_on_slurm(cluster)
            except QueueUnreachable as error:
                raise ConfigError(f"SLURM does not answer: {error}") from error
            except TakenOver as error:
                raise ConfigError(str(error)) from error
        elif self.launcher_is(*OWN):
            status = self.run_jobs(self.pool())
        else:
            status = self.run_by_plugin()
        self.console.close()
        return self.report() if status is None else status

    def check_options(self) -> None:
        """Refuse options of a sweep that would change nothing with its launcher."""
        on_slurm, workers = self.launcher_is(SLURM), self.options["workers"]
        if self.options["detach"] and not on_slurm:
            raise ConfigError("sweep.detach=true needs SLURM: hydra/launcher=submitit_slurm, or a preset")
        if self.options["detach"] and self.fail_fast:
            raise ConfigError(
                "fail_fast=true needs somebody who watches, and with sweep.detach=true nobody does: give one"
            )
        if on_slurm and workers is not None:
            raise ConfigError(
                f"sweep.workers={workers} is of processes of this machine: with SLURM "
                f"hydra.launcher.array_parallelism={workers} says how many runs of an array go at a time"
            )

    def check_jobs(self) -> None:
        """Refuse jobs that cannot be, or that runs could not use, and say what the shell adds to what they ask for."""
        shapes = list({id(shape): shape for shape in (self.default_shape, *self.shapes.values())}.values())
        for shape in shapes:
            request.check_names(shape)
            if self.launcher_is(SLURM):
                request.check(shape, self.configs[0])
        if self.launcher_is(SLURM):
            for line in shell.describe(shapes):
                self.console.say(line)

    def modules(self) -> set[str]:
        """What the runs import besides the harness and its methods."""
        return {name for config in self.plan.runs.values() for name in modules(config)}

    # One after the other in this process

    def is_here(self) -> bool:
        return self.launcher_is(BASIC) and self.options["pack"] == 1 and self.options["workers"] is None

    def run_here(self) -> int | None:
        """A run that fails is recorded and the next one starts. Like its siblings it returns None where the
        sweep has come to its report, else the exit status.
        """
        from harness.run.run import execute
        from harness.training.device import is_lost

        todo = [*self.plan.teachers.values(), *self.plan.students.values()]
        bar = Bar(self.console, "sweep", len(todo))
        failed, lost = 0, False
        with StopRequest() as stop:
            for done, config in enumerate(todo):
                bar.update(done, f"{done - failed} done, {failed} failed, {len(todo) - done} left")
                directory = run_directory(config)
                if reason := self.lacks_teacher(directory):
                    self.not_run[directory] = reason
                    continue
                self.tried.add(directory)
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
                if lost := not ended_well and is_lost():
                    break
        bar.close()
        return self.run_apart() if lost else None

    def run_apart(self) -> int | None:
        """What is left, one after the other in processes of their own."""
        self.console.say("the GPU of this process answers no more: what is left runs in fresh processes, one at a time")
        device = self.configs[0]["device"]
        return self.run_jobs(Local(self.folder, gpus_for(device) if ":" in device else [None], self.modules()))

    # Processes of this machine

    def pool(self) -> Local:
        """As many at a time as the options say and memory holds: on each GPU, or on the machine's cores, `sweep.pack`."""
        pack, workers = self.options["pack"], self.options["workers"]
        devices = max(config["devices"] for config in self.configs)
        gpus = group(gpus_for(self.configs[0]["device"]), devices)
        most = pack * max(1, len(gpus)) if pack > 1 else workers or len(gpus) or max(1, host.cores() // (2 * devices))
        todo = [*self.plan.teachers.values(), *self.plan.students.values()]
        slots, note = memory.find_slots(todo, most, gpus)
        if note and (pack > 1 or len(slots) < most):
            self.console.say(note)
        return Local(self.folder, slots, self.modules())

    # Launchers of other plugins

    def run_by_plugin(self) -> None:
        """Hand the missing runs to Hydra's launcher; students then train the teachers they lack, under claims.

        Raises ConfigError for options that such a launcher cannot keep.
        """
        for option, chosen in (
            ("sweep.pack", self.options["pack"] > 1),
            ("sweep.workers", self.options["workers"] is not None),
            ("fail_fast", self.fail_fast),
            ("hydra.launcher, with other values for some runs,", self.shapes),
        ):
            if chosen:
                raise ConfigError(f"{option} needs another launcher: basic, submitit_local or submitit_slurm")
        config = copy.deepcopy(self.hydra_config)
        with open_dict(config):
            config.hydra.launcher = self.default_shape
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=config
        )
        # Composed anew in each job, which must not be of another time and folder.
        folders = [to_override(key, quoted(self.configs[0][key])) for key in ("runs", "bank")]
        asked = dict(zip(self.plan.asked, self.jobs, strict=True))
        launcher.launch([[*asked[student], *folders] for student in self.plan.students], initial_job_idx=0)

    # Jobs

    def run_on_slurm(self, backend: Slurm) -> int | None:
        if not self.options["detach"]:
            return self.run_jobs(backend)
        submitter = Submitter(self.folder, backend, self.console)
        teachers = submitter.submit(self.plan.teachers)
        students = 0 if backend.unsubmitted else submitter.submit(self.plan.students, after=backend.arrays())
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
        submitter = Submitter(self.folder, backend, self.console)
        with StopRequest() as stop:
            for what, runs in (("teachers", self.plan.teachers), ("students", self.plan.students)):
                if what == "students":
                    self.not_run = {d: reason for d in runs if (reason := self.lacks_teacher(d))}
                past = self.not_run.keys() | self.tried
                todo = {directory: config for directory, config in runs.items() if directory not in past}
                if not submitter.submit_patiently(what, todo, stop):
                    self.console.say(f"stopped; no {what} are submitted")
                    return STOPPED
                watch = Watch(backend, self.console, what, todo)
                if not watch.follow(stop, self.fail_fast, lambda some: submitter.submit(some, stop=stop)):
                    if not stop():
                        return None
                    self.leave(backend, watch)
                    return STOPPED
        return None

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
        self.console.say(f"to watch:    python -m harness.status {shlex.quote(str(self.folder))}")
        self.console.say(f"to reattach: python -m harness {command}")

    def lacks_teacher(self, student: Path) -> str | None:
        """Why a student cannot run, once teachers are trained: one of its own could not be."""
        for directory in self.plan.needs.get(student, ()):
            if directory not in self.teachers:
                record = settled(directory)
                self.teachers[directory] = "missing" if record is None else record["status"]
            if self.teachers[directory] in ("failed", "diverged"):
                return f"not run: its teacher {directory.name} has {self.teachers[directory]}"
        return None

    # Words

    def report(self) -> int:
        results = self.results()
        show(results, self.plan, self.folder, self.started, self.console)
        return 1 if results.missing else 0

    def results(self) -> Results:
        return collect(self.plan, self.not_run, self.console)

    def describe_arrays(self, runs: dict[Path, Config]) -> str:
        on_slurm = self.launcher_is(SLURM)
        return describe_arrays(runs, self.shape, self.options["pack"]) if on_slurm else ""

    def shape(self, directory: Path) -> Shape:
        return with_environment(shell.complete(self.shapes.get(directory, self.default_shape)), self.environment)

    def launcher_is(self, *names: str) -> bool:
        return self.launcher.endswith(names)
