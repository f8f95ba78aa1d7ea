"""A sweep: plan, teachers, students, table, list of what failed. Everything that it knows is on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from harness.claim import Claimed
from harness.config import run_directory
from harness.interruption import StopRequest
from harness.plan import Plan, make_plan
from harness.progress import Bar, Console, duration
from harness.record import DamagedRecord, read_record
from harness.run import execute
from harness.summary import sweep_table
from harness.training import Interrupted

Config = dict[str, Any]


class Sweep:
    """The runs of one command line. `jobs` are the same runs as Hydra overrides, for launchers that want those."""

    def __init__(
        self,
        configs: list[Config],
        jobs: list[tuple[str, ...]],
        context: HydraContext,
        hydra_config: DictConfig,
        task_function: TaskFunction,
    ):
        self.plan = make_plan(configs)
        self.configs, self.jobs = configs, jobs
        self.context, self.hydra_config, self.task_function = context, hydra_config, task_function
        self.console = Console()
        self.started = time.time()

    def run(self) -> int:
        """Run what is missing and report; returns the exit status."""
        plan = self.plan
        self.console.say(describe(plan))
        if plan.students:
            stopped = self.launch()
            if stopped:
                return stopped
        return self.report()

    def launch(self) -> int:
        target = self.hydra_config.hydra.launcher._target_
        if target.endswith("BasicLauncher"):
            return self.run_here()
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.hydra_config
        )
        missing = [job for job, c in zip(self.jobs, self.configs, strict=True) if run_directory(c) in self.plan.students]
        launcher.launch(missing, initial_job_idx=0)
        return 0

    def run_here(self) -> int:
        """One after the other in this process; a run that fails is recorded and the next one starts."""
        todo = [*self.plan.teachers.values(), *self.plan.students.values()]
        bar = Bar(self.console, "sweep", len(todo))
        failed = 0
        with StopRequest() as stop:
            for done, config in enumerate(todo):
                bar.update(done, f"{done} done, {failed} failed, {len(todo) - done} left")
                try:
                    record = execute(config, self.console, stop)
                    self.console.say(outcome(record, run_directory(config)))
                except Interrupted as error:
                    self.console.close()
                    self.console.say(f"{error}; the same command goes on from there")
                    return 130
                except Claimed as error:
                    self.console.say(f"{run_directory(config).name}: left to others: {error}")
                except Exception as error:  # noqa: BLE001  the run recorded it; the others must not suffer
                    failed += 1
                    self.console.say(f"{run_directory(config).name}: {type(error).__name__}: {error}")
        bar.close()
        self.console.close()
        return 0

    def report(self) -> int:
        """The table of what is done and the list of what is not; 0 where nothing is missing."""
        records, failures = [], []
        for directory in self.plan.runs:
            try:
                record = read_record(directory)
            except DamagedRecord as error:
                failures.append(f"{directory.name}: {error}")
                continue
            if record is not None and record["status"] == "done":
                records.append(record)
            elif record is None:
                failures.append(f"{directory.name}: no record")
            else:
                failures.append(f"{directory.name}: {record['status']}: {record['error']['message']} ({directory}/run.log)")
        if records:
            self.console.show(sweep_table(records))
        for failure in failures:
            self.console.say(f"missing  {failure}")
        folder = next(iter(self.plan.runs)).parent
        self.console.say(
            f"{len(records)} of {len(self.plan.runs)} runs done in {folder}/ ({duration(time.time() - self.started)}); "
            f"tests and verdicts: python -m analysis {folder}"
        )
        return 1 if failures else 0


def describe(plan: Plan) -> str:
    return (
        f"{len(plan.runs)} runs: {len(plan.finished)} done before, {len(plan.students)} to run, "
        f"{len(plan.teachers)} teachers to train first"
    )


def outcome(record: dict[str, Any], directory: Path) -> str:
    """One line on a finished run."""
    name = directory.name.rpartition("-")[0]
    if record["status"] != "done":
        return f"{name}: {record['status']}: {record['error']['message']}"
    test = record["metrics"]["student"]["test"]
    wall = duration(record["cost"]["wall_s"])
    return f"{name}: acc {100 * test['acc']:.2f} %, nll {test['nll']:.4f}, ece {test['ece']:.4f}, {wall}"
