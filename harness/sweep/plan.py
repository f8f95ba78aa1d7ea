"""What a sweep has to do: which runs are finished, which remain, which teachers they lack."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.teachers import teacher_configs
from harness.store.aside import TRAINED
from harness.store.files import Damaged
from harness.store.identity import run_directory
from harness.store.record import answers, lost_files, read_record, settled

Config = dict[str, Any]


@dataclass
class Plan:
    """The distinct runs of a sweep, in order, and what is missing of them."""

    runs: dict[Path, Config] = field(default_factory=dict)  # by run directory
    finished: list[Path] = field(default_factory=list)
    students: dict[Path, Config] = field(default_factory=dict)  # still to run
    trained: set[Path] = field(default_factory=set)  # of these, what is only evaluated
    teachers: dict[Path, Config] = field(default_factory=dict)  # to train first
    refused: dict[Path, str] = field(default_factory=dict)  # what must be left alone, such as newer records, and why

    def to_train(self) -> list[Config]:
        """What takes time: teachers, and students that are not only evaluated."""
        students = [config for directory, config in self.students.items() if directory not in self.trained]
        return [*self.teachers.values(), *students]


def make_plan(configs: list[Config]) -> Plan:
    """Plan a sweep from its runs' configurations; reads the disk, changes nothing."""
    plan = Plan()
    teachers_done: dict[Path, bool] = {}
    for config in configs:
        directory = run_directory(config)
        if asked := plan.runs.get(directory):
            config = {**asked, "evaluate": all_questions(asked["evaluate"], config["evaluate"])}
        plan.runs[directory] = config
    for directory, config in plan.runs.items():
        if reason := untouchable(directory, *map(run_directory, teacher_configs(config))):
            plan.refused[directory] = reason
            continue
        if not config["force"]:
            record = whole(directory)
            if record is not None and answers(record, config["evaluate"]):
                plan.finished.append(directory)
                continue
            if (record is not None and record["status"] == "done") or (directory / TRAINED).exists():
                plan.trained.add(directory)
        plan.students[directory] = config
        for teacher in teacher_configs(config):
            place = run_directory(teacher)
            if place not in teachers_done:
                teachers_done[place] = is_finished(place, teacher)
                if not teachers_done[place]:
                    plan.teachers[place] = teacher
    return plan


def describe(plan: Plan) -> str:
    """One line on a plan."""
    only = f" ({len(plan.trained)} of them trained before, only to be evaluated)" if plan.trained else ""
    return (
        f"{len(plan.runs)} runs: {len(plan.finished)} done before, {len(plan.students)} to run{only}, "
        f"{len(plan.teachers)} teachers to train first"
    )


def all_questions(evaluate: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """What a run that is asked for twice, in different words, is asked."""
    ood = list(dict.fromkeys([*evaluate["ood"], *others["ood"]]))
    return {**evaluate, "shift": evaluate["shift"] or others["shift"], "ood": ood}


def estimate_hours(plan: Plan, runs: Path) -> tuple[float, int, str]:
    """Hours that the plan's runs will take by records of like runs in `runs` and the bank; how many of the
    plan's runs have such records; and whether the hours are GPU-hours or CPU-hours.

    A like run has the same method, data set, number of train images, model and number of epochs; the median of its kind
    counts.
    """
    devices = set()
    seconds: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for folder in {runs, *(teacher.parent for teacher in plan.teachers)}:
        for file in folder.glob("*/record.json"):
            with contextlib.suppress(Damaged):
                record = read_record(file.parent)
                if record is not None and record["status"] == "done":
                    seconds[kind(record["config"])].append(record["cost"]["wall_s"])
                    devices.add(record["provenance"]["device"])
    todo = plan.to_train()
    known = [statistics.median(seconds[kind(config)]) for config in todo if kind(config) in seconds]
    return sum(known) / 3600, len(known), "CPU-hours" if devices == {"cpu"} else "GPU-hours"


def kind(config: Config) -> tuple[Any, ...]:
    data = config["data"]
    return config["method"]["name"], data["name"], data.get("train"), config["model"], config["train"]["epochs"]


def untouchable(*directories: Path) -> str | None:
    """Why a run cannot run: a record, its own or a teacher's, that this code must neither believe nor replace."""
    for directory in directories:
        try:
            read_record(directory)
        except Damaged as error:
            if not error.mend:
                return str(error)
    return None


def whole(directory: Path) -> Config | None:
    """The record that says how a run ended, where what it says is there is there."""
    record = settled(directory)
    return None if record is None or lost_files(directory, record) else record


def is_finished(directory: Path, config: Config) -> bool:
    """Whether a run need not run again."""
    record = whole(directory)
    return record is not None and answers(record, config["evaluate"])
