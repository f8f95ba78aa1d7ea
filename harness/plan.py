"""What a sweep has to do: which runs are finished, which remain, which teachers they lack."""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import build_method, run_directory, teacher_config
from harness.record import TRAINED, DamagedRecord, answers, read_record, settled

Config = dict[str, Any]


@dataclass
class Plan:
    """The distinct runs of a sweep, in order, and what is missing of them."""

    runs: dict[Path, Config] = field(default_factory=dict)  # by run directory
    finished: list[Path] = field(default_factory=list)
    students: dict[Path, Config] = field(default_factory=dict)  # still to run
    trained: set[Path] = field(default_factory=set)  # of these, what is only evaluated
    teachers: dict[Path, Config] = field(default_factory=dict)  # to train first

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
        if directory in plan.runs:
            add_questions(plan.runs[directory]["evaluate"], config["evaluate"])
        else:
            plan.runs[directory] = config
    for directory, config in plan.runs.items():
        if not config["force"]:
            record = settled(directory)
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


def add_questions(evaluate: dict[str, Any], others: dict[str, Any]) -> None:
    """Let a run answer what is asked of it twice, in different words."""
    evaluate["shift"] = evaluate["shift"] or others["shift"]
    evaluate["ood"] = list(dict.fromkeys([*evaluate["ood"], *others["ood"]]))


def estimate_hours(plan: Plan, runs: Path) -> tuple[float, int, str]:
    """Hours that the plan's runs will take by records of like runs in `runs` and the bank; how many of the
    plan's runs have such records; and whether the hours are GPU-hours or CPU-hours.

    A like run has the same method, data set, model and number of epochs; the median of its kind counts.
    """
    devices = set()
    seconds: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for folder in {runs, *(teacher.parent for teacher in plan.teachers)}:
        for file in folder.glob("*/record.json"):
            with contextlib.suppress(DamagedRecord):
                record = read_record(file.parent)
                if record is not None and record["status"] == "done":
                    seconds[kind(record["config"])].append(record["cost"]["wall_s"])
                    devices.add(record["provenance"]["device"])
    todo = plan.to_train()
    known = [statistics.median(seconds[kind(config)]) for config in todo if kind(config) in seconds]
    return sum(known) / 3600, len(known), "CPU-hours" if devices == {"cpu"} else "GPU-hours"


def kind(config: Config) -> tuple[Any, ...]:
    return config["method"]["name"], config["data"]["name"], config["model"], config["train"]["epochs"]


def teacher_configs(config: Config) -> list[Config]:
    """Configurations of every teacher that a run reads from the bank."""
    size = 0 if build_method(config).teachers == 0 else config["teachers"]["size"]
    return [teacher_config(config, member) for member in range(size)]


def is_finished(directory: Path, config: Config) -> bool:
    """Whether a run need not run again."""
    record = settled(directory)
    return record is not None and answers(record, config["evaluate"])
