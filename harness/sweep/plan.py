"""What a sweep has to do: which runs are finished, which remain, which teachers they lack."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.run.teachers import teacher_configs
from harness.store.aside import TRAINED
from harness.store.files import Damaged
from harness.store.identity import run_directory
from harness.store.record import answers, lost_files, read_record
from harness.sweep.composer import Outline, outline

Config = dict[str, Any]


@dataclass
class Plan:
    """The distinct runs of a sweep, in order, and what is missing of them."""

    runs: dict[Path, Config] = field(default_factory=dict)  # by run directory
    asked: list[Path] = field(default_factory=list)  # the run of each configuration, in order
    needs: dict[Path, dict[Path, Config]] = field(default_factory=dict)  # of each run its teachers
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
    plan, there = Plan(), Folders()
    sets: dict[Outline, dict[Path, Config]] = {}
    for config in configs:
        directory = run_directory(config)
        plan.asked.append(directory)
        kind = outline(config)  # teachers know nothing of a student's seed
        if kind not in sets:
            sets[kind] = {run_directory(teacher): teacher for teacher in teacher_configs(config)}
        plan.needs[directory] = sets[kind]
        if asked := plan.runs.get(directory):
            config = {**asked, "evaluate": all_questions(asked["evaluate"], config["evaluate"])}
        plan.runs[directory] = config
    teachers = {place: config for members in sets.values() for place, config in members.items()}
    found = {place: look(place) for place in teachers if there.has(place)}
    untouchable = {place: reason for place, (_, reason) in found.items() if reason}
    done = {place for place, (record, _) in found.items() if is_answer(record, teachers[place])}
    for directory, config in plan.runs.items():
        members = plan.needs[directory]
        record, reason = look(directory) if there.has(directory) else (None, None)
        if reason := reason or next((untouchable[place] for place in members if place in untouchable), None):
            plan.refused[directory] = reason
            continue
        if not config["force"]:
            if is_answer(record, config):
                plan.finished.append(directory)
                continue
            if (record is not None and record["status"] == "done") or there.has(directory, TRAINED):
                plan.trained.add(directory)
        plan.students[directory] = config
        plan.teachers.update((place, members[place]) for place in members if place not in done)
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


class Folders:
    """What runs there are in some folders: each is listed once, since most runs of a large sweep are not there yet."""

    def __init__(self) -> None:
        self.names: dict[Path, set[str]] = {}

    def has(self, directory: Path, name: str = "") -> bool:
        """Whether a run's directory is there, or a file in it."""
        folder = directory.parent
        if folder not in self.names:
            self.names[folder] = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        return directory.name in self.names[folder] and (not name or (directory / name).exists())


def look(directory: Path) -> tuple[Config | None, str | None]:
    """The record that says how a run ended, where what it says is there is there; and why the run must be left alone:
    its record is one that this code must neither believe nor replace.
    """
    try:
        record = read_record(directory)
    except Damaged as error:
        return None, None if error.mend else str(error)
    if record is None or record["status"] == "interrupted" or lost_files(directory, record):
        return None, None
    return record, None


def is_answer(record: Config | None, config: Config) -> bool:
    """Whether a run with this record, or none, need not run again."""
    return record is not None and answers(record, config["evaluate"])


def is_finished(directory: Path, config: Config) -> bool:
    """Whether a run need not run again, by now."""
    return is_answer(look(directory)[0], config)
