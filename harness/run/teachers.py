"""The teachers of a run as runs of their own: a supervised one for each member of its set, or what the set was imported as."""

from __future__ import annotations

import contextlib
import glob
from pathlib import Path
from typing import Any

from harness.config import ConfigError
from harness.config.methods import build_method
from harness.config.options import FOLDERS, Train
from harness.store.files import Damaged
from harness.store.identity import TEACHER, bank_folder, in_path, run_directory
from harness.store.imports import import_file, read_import
from harness.store.record import RECORD, read_record

Config = dict[str, Any]

# What an imported teacher was shown when it was trained is nobody's business here: students of any augmentation share it.
UNCHANGED = {"padding": 0, "flip": False, "randaugment": 0, "magnitude": 0, "cutout": 0}


def teacher_configs(config: Config) -> list[Config]:
    """Configurations of every teacher that a run reads from the bank, in member order.

    Raises ConfigError where the set was imported, and is not what the run asks for.
    """
    size = 0 if build_method(config).teachers == 0 else config["teachers"]["size"]
    imported = read_import(bank_folder(config), config["data"]["name"], config["teachers"]["set"]) if size else None
    if imported is None:
        members = [teacher_config(config, member) for member in range(size)]
        if members and not run_directory(members[0]).exists():
            check_not_imported(config)
        return members
    check_imported(config, len(imported))
    members = [imported_config(config, about, member) for member, about in enumerate(imported[:size])]
    for member in members:
        if not (place := run_directory(member) / RECORD).exists():
            raise ConfigError(
                f"teachers.set={config['teachers']['set']} was imported for other images of data={config['data']['name']}, "
                f"or {place} is gone: import it for these (python -m harness.bank add)"
            )
    return members


def teacher_config(config: Config, member: int) -> Config:
    """The configuration that trains member m of a run's teacher set: a supervised run with streams of its own."""
    teachers = config["teachers"]
    named = teachers["model"]
    return {
        **config,
        "method": {"name": "supervised", "reestimate_bn": False},
        "model": named or config["model"],
        "network": (teachers if named else config).get("network", {}),
        "train": {**config["train"], **teachers["train"]},
        "seed": f"teacher/{teachers['set']}/{member}",
        "teachers": {"size": 0, "set": teachers["set"], "model": None, "train": {}, "cache": "none"},
        "evaluate": {key: False for key in config["evaluate"]},
        "tuned": None,
    }


def imported_config(config: Config, about: dict[str, Any], member: int) -> Config:
    """The configuration of member m of an imported set: of these images, this network, and no training here.

    about: its `model` and `network`.
    """
    recipe = {**vars(Train()), "epochs": 0}
    of_images = {**config["data"], **UNCHANGED}
    asked = {**config, "train": recipe, "data": of_images, **about}
    return teacher_config({**asked, "teachers": {**config["teachers"], "model": None, "train": {}}}, member)


def is_imported(config: Config) -> bool:
    """Whether a teacher's configuration is of one that was trained elsewhere."""
    return config["train"]["epochs"] == 0


def is_trained(place: Path) -> bool:
    """Whether a teacher was, or is being, trained here: what is left of an import that was cut short is not."""
    record = read_record(place)
    return record is None or not is_imported(record["config"])


def find_teachers(bank: Path, data: Config, number: int, anywhere: bool = False) -> list[Path]:
    """The directories of a set's teachers, of any network and recipe; `anywhere`: of folders with other images, too."""
    found = bank.glob(f"{glob.escape(in_path(data['name']))}-*-set{number}-m*")
    return sorted(place for place in found if TEACHER.fullmatch(place.name) and is_of(place, data, anywhere))


def is_of(place: Path, data: Config, anywhere: bool) -> bool:
    """Whether a teacher is of a data set, as its record says where it can be read: `a` and `a-b` begin alike, and folders
    have one name.
    """
    with contextlib.suppress(Damaged):
        if (record := read_record(place)) is not None:
            known = record["config"]["data"]
            here = anywhere or data["name"] not in FOLDERS or known["root"] == data["root"]
            return known["name"] == data["name"] and here
    return True


def check_not_imported(config: Config) -> None:
    """Raise ConfigError where a set that is to be trained has imported teachers, of which no file says any more (or yet)
    that they are the set.
    """
    bank, number = bank_folder(config), config["teachers"]["set"]
    for place in find_teachers(bank, config["data"], number, anywhere=True):
        with contextlib.suppress(Damaged):  # a record that cannot be believed says nothing
            if not is_trained(place):
                raise ConfigError(
                    f"teachers.set={number} was imported, as {place} says, but "
                    f"{import_file(bank, config['data']['name'], number)} is gone: import it again (python -m harness.bank "
                    "add), or choose another set"
                )


def check_imported(config: Config, count: int) -> None:
    """Raise ConfigError where a run asks for other teachers than the `count` of an imported set."""
    teachers = config["teachers"]
    which = f"teachers.set={teachers['set']} was imported"
    if teachers["size"] > count:
        raise ConfigError(
            f"{which} with {count} teachers, not {teachers['size']}: teachers.size={count}, or import more"
        )
    if teachers["model"] or teachers["train"]:
        given = "teachers.model" if teachers["model"] else "teachers.train"
        raise ConfigError(f"{which}, and its teachers are what they are: leave out {given}, or choose another set")


def bank_of(directory: Path, config: Config) -> Path:
    """The bank of a run: the one that it names, else beside it, wherever its folder lies by now."""
    return directory.parent / "teachers" if config["bank"] is None else bank_folder(config)


def teachers_of(directory: Path, config: Config) -> list[Config]:
    """Configurations of the teachers of a run, wherever its folder lies by now. Raises what `teacher_configs` raises."""
    return teacher_configs({**config, "bank": str(bank_of(directory, config))})
