"""What a sweep has to do: which runs are finished, which remain, which teachers they lack."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import build_method, run_directory, teacher_config
from harness.record import DamagedRecord, read_record

Config = dict[str, Any]


@dataclass
class Plan:
    """The distinct runs of a sweep, in order, and what is missing of them."""

    runs: dict[Path, Config] = field(default_factory=dict)  # by run directory
    finished: list[Path] = field(default_factory=list)
    students: dict[Path, Config] = field(default_factory=dict)  # still to run
    teachers: dict[Path, Config] = field(default_factory=dict)  # to train first


def make_plan(configs: list[Config]) -> Plan:
    """Plan a sweep from its runs' configurations; reads the disk, changes nothing."""
    plan = Plan()
    teachers_done: dict[Path, bool] = {}
    for config in configs:
        directory = run_directory(config)
        if directory in plan.runs:
            continue
        plan.runs[directory] = config
        if not config["force"] and is_finished(directory):
            plan.finished.append(directory)
            continue
        plan.students[directory] = config
        for teacher in teacher_configs(config):
            place = run_directory(teacher)
            if place not in teachers_done:
                teachers_done[place] = is_finished(place)
                if not teachers_done[place]:
                    plan.teachers[place] = teacher
    return plan


def teacher_configs(config: Config) -> list[Config]:
    """Configurations of every teacher that a run reads from the bank."""
    size = 0 if build_method(config).teachers == 0 else config["teachers"]["size"]
    return [teacher_config(config, member) for member in range(size)]


def is_finished(directory: Path) -> bool:
    """Whether a run need not run again; a damaged record counts as missing."""
    try:
        record = read_record(directory)
    except DamagedRecord:
        return False
    return record is not None and record["status"] in ("done", "diverged")
