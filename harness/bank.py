"""`python -m harness.bank add|list|remove`: teachers that were trained elsewhere, and what the bank holds.

    add FILE... data=DATA model=NAME teachers.set=N     the networks in these files as teacher set N, in their order;
        model=a,b,c: a network each                     safetensors, or what torch.save makes of network.state_dict()
        --mean 0.5,0.5,0.5 --sd 0.2,0.2,0.2             how they normalise pixels in [0, 1], where it is not as the set does
        --classes FILE                                  what their outputs stand for, a line each, where it is another order
    list [RUNS ...]                                     every teacher: set, network, accuracy, size, runs that learned from it
    remove data=DATA teachers.set=N                     a set that no run needs

Options of runs, such as bank=FOLDER, runs=FOLDER, data.root=FOLDER and device=cuda, mean what they mean there. A student
learns from an imported set by its number, teachers.set=N, whatever it is trained by.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import shutil
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import ConfigError
from harness.runtime.console import Console, complain, one_line, run_command
from harness.store.claim import CLAIM, Claim, Claimed, living
from harness.store.files import Damaged
from harness.store.identity import TEACHER, TEACHER_SEED, bank_folder, in_path, run_directory
from harness.store.imports import FOLDER, Member, import_file, read_import, write_import
from harness.store.record import RECORD, check_files, lost_files, read_record
from harness.store.submission import CONFIG, read_config

if TYPE_CHECKING:
    from harness.run.importing import Source

Config = dict[str, Any]


def add(files: Sequence[Path], overrides: Sequence[str], options: argparse.Namespace, console: Console) -> None:
    """Import networks as a teacher set. Raises ConfigError, before anything is written, where one does not fit; Claimed
    where somebody else is at the bank's imports.
    """
    from harness.run.data import load_images
    from harness.run.importing import Source, fit, write_teacher
    from harness.run.teachers import imported_config
    from harness.training.device import choose_device

    config, models = compose(overrides)
    if not models:
        raise ConfigError("say which network it is: model=NAME, or as many as there are files")
    if len(models) not in (1, len(files)):
        raise ConfigError(f"{len(models)} networks are named for {len(files)} files: give one, or one for each")
    name, number, bank = config["data"]["name"], config["teachers"]["set"], bank_folder(config)
    named = models if len(models) > 1 else models * len(files)
    members: list[Member] = [{"model": model, "network": config["network"]} for model in named]
    sources = [Source(file, options.mean, options.sd, options.classes) for file in files]
    configs = [imported_config(config, about, member) for member, about in enumerate(members)]
    asked = list(zip(sources, configs, strict=True))
    missing = find_missing(bank, config, members, asked)
    data, fingerprint = load_images(config["data"], choose_device(config["device"]), console)
    networks = {run_directory(one): fit(source, one, data.to("cpu")) for source, one in missing}
    with Claim(bank / FOLDER):
        for source, one in find_missing(bank, config, members, asked):  # once more: nobody else imports now
            directory = run_directory(one)
            directory.mkdir(parents=True, exist_ok=True)
            with Claim(directory):
                record = write_teacher(directory, one, networks[directory], source, data, fingerprint)
            test = record["metrics"]["student"]["test"]
            console.say(
                f"{source.path}: {one['model']}, acc {100 * test['acc']:.2f} %, nll {test['nll']:.4f} -> {directory}"
            )
        write_import(bank, name, number, members)
    console.say(f"teachers.set={number} teachers.size={len(members)} learns from them, with data={name}")


def find_missing(
    bank: Path, config: Config, members: list[Member], asked: list[tuple[Source, Config]]
) -> list[tuple[Source, Config]]:
    """Which of a set's teachers are to be written: all of them, or of a set that is there those that are damaged or gone.

    Raises ConfigError where the number is another set's.
    """
    from harness.run.teachers import find_teachers, is_trained

    name, number = config["data"]["name"], config["teachers"]["set"]
    places = [run_directory(one) for _, one in asked]
    taken = ConfigError(f"{bank} has a set {number} of data={name}: choose another teachers.set, or remove it")
    if any(is_trained(place) for place in find_teachers(bank, config["data"], number) if place not in places):
        raise taken
    if (known := read_import(bank, name, number)) is None:
        return asked
    sound = {place: record for place in places if (record := sound_record(place))}
    if known != members or len(sound) == len(places) or not any(place.is_dir() for place in places):
        raise taken
    for place, (source, _) in zip(places, asked, strict=True):
        if place in sound and (was := sound[place]["provenance"]["imported"]) != {**was, **source.about()}:
            raise taken
    return [pair for place, pair in zip(places, asked, strict=True) if place not in sound]


def sound_record(place: Path) -> dict[str, Any] | None:
    """A teacher's record; None where it, or a file of it, is damaged or gone."""
    with contextlib.suppress(Damaged):
        if (record := read_record(place)) is not None and not lost_files(place, record):
            check_files(place, record)
            return record
    return None


def compose(overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """The configuration of a teacher, and the networks that `model=` names. Raises ConfigError."""
    from hydra import compose as compose_by_hydra
    from hydra import initialize
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from harness.app import VERSION, configure, in_one_line
    from harness.config.composition import register, register_brought, words

    with in_one_line():
        register()
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        register_brought(parsed)
    keys = {override.key_or_group for override in parsed}
    if missing := {"data", "teachers.set"} - keys:
        raise ConfigError(f"say which set it is: {' and '.join(f'{key}=...' for key in sorted(missing))}")
    models = [name for override in parsed if override.key_or_group == "model" for name in words(override)]
    others = [override.input_line for override in parsed if override.key_or_group != "model"]
    chosen = [[f"model={name}"] for name in models] or [[]]
    with in_one_line(), initialize(config_path=None, **(VERSION or {"version_base": None})):
        configs = [configure(compose_by_hydra("config", ["method=supervised", *others, *model])) for model in chosen]
    return configs[0], models


def show(folders: Sequence[Path], console: Console) -> None:
    """A table of every teacher of these folders of runs (or banks). Raises ConfigError where there is none."""
    from rich.table import Table

    table = Table(title="teachers", title_justify="left")
    for column in ("data", "set", "member", "network", "acc %", "nll", "parameters", "MB", "runs", "came by"):
        table.add_column(column, justify="left" if column in ("data", "network", "came by") else "right")
    damaged: list[Damaged] = []
    for bank in [folder / "teachers" if (folder / "teachers").is_dir() else folder for folder in folders]:
        uses, unread = count_uses([*folders, bank.parent])
        damaged += unread
        for place in sorted((path for path in bank.glob("*-set*-m*") if TEACHER.fullmatch(path.name)), key=by_set):
            try:
                if (record := read_record(place)) is not None:
                    table.add_row(*describe(place, record, uses[place.name]))
            except Damaged as error:
                damaged.append(error)
    if not table.rows and not damaged:
        raise ConfigError(f"no teachers in {', '.join(map(str, folders))}")
    console.show(table)
    for line in dict.fromkeys(map(str, damaged)):
        console.say(f"damaged  {line}")


def by_set(place: Path) -> tuple[str, int, int, str]:
    """A teacher's directory by data set, set and member, of which its name tells."""
    named, number, member = TEACHER.fullmatch(place.name).groups()
    return named.partition("-")[0], int(number), int(member), place.name


def describe(place: Path, record: dict[str, Any], uses: int) -> list[str]:
    """A teacher's row. Raises Damaged where the record is of a student."""
    config = record["config"]
    if (of := TEACHER_SEED.fullmatch(str(config["seed"]))) is None:
        raise Damaged(f"{place / RECORD} is of a student, not of a teacher")
    number, member = of.groups()
    said = [config["data"]["name"], number, member, config["model"]]
    if record["status"] != "done":
        return [one_line(cell) for cell in [*said, record["status"], "", "", "", f"{uses:,}", ""]]
    test = record["metrics"]["student"]["test"]
    size = sum(file.stat().st_size for file in place.iterdir() if file.is_file()) / 1e6
    numbers = [f"{100 * test['acc']:.2f}", f"{test['nll']:.4f}", f"{record['cost']['parameters']:,}", f"{size:.1f}"]
    imported = record["provenance"].get("imported")
    came = f"imported from {imported['file']}" if imported else f"{config['train']['epochs']} epochs"
    return [one_line(cell) for cell in [*said, *numbers, f"{uses:,}", came]]


def count_uses(folders: Sequence[Path]) -> tuple[Counter[str], list[Damaged]]:
    """How many runs of these folders learned from each teacher, by its name; and the records that do not tell."""
    uses: Counter[str] = Counter()
    unread = []
    for place in sorted({path for folder in folders for path in folder.glob(f"*/{RECORD}")}):
        try:
            if record := read_record(place.parent):
                uses.update(record["provenance"].get("teachers") or ())
        except Damaged as error:
            unread.append(error)
    return uses, unread


def remove(overrides: Sequence[str], console: Console) -> None:
    """Remove a teacher set. Raises ConfigError where there is none, a run needs it, or somebody is at it."""
    from harness.run.teachers import find_teachers, is_trained

    config, _ = compose(overrides)
    name, number = config["data"]["name"], config["teachers"]["set"]
    bank, runs = bank_folder(config), Path(config["runs"])
    folders, file = [runs, bank.parent], import_file(bank, name, number)
    with contextlib.ExitStack() as claims:
        if file.exists():
            claims.enter_context(Claim(bank / FOLDER))
        places = find_teachers(bank, config["data"], number)
        others = [p for p in find_teachers(bank, config["data"], number, anywhere=True) if p not in places]
        of_others = any(not is_trained(place) for place in others)
        if not places and (of_others or not file.exists()):
            raise ConfigError(f"{bank} has no set {number} of data={name}")
        uses, unread = count_uses(folders)
        if unread:
            raise ConfigError(
                f"{unread[0]}: nobody knows whether that run learned from this set; mend or remove it first"
            )
        if needed := [place for place in places if uses[place.name]]:
            raise ConfigError(
                f"{needed[0].name} has taught {uses[needed[0].name]:,} of the runs in {runs}, which nobody could verify "
                "without it: remove those runs first"
            )
        if busy := find_busy(folders, name):
            raise ConfigError(f"{busy} is being worked on, and may learn from this set: wait until it is done")
        if waiting := find_waiting(folders, name, number):
            raise ConfigError(f"{waiting} has not ended, and learns from this set: go on with it, or remove it first")
        for place in places:
            claims.enter_context(Claim(place))
        for place in places:
            away = place.rename(place.with_name(f".removed.{uuid.uuid4().hex[:12]}"))
            shutil.rmtree(away)
        if not of_others:
            file.unlink(missing_ok=True)
    console.say(f"removed set {number} of data={name}, {len(places)} teachers; no run in {runs} has learned from them")


def students(folders: Sequence[Path], data: str, *files: str) -> list[Path]:
    """The directories of a data set's runs that hold one of these files."""
    start = glob.escape(in_path(data))
    return sorted({path.parent for folder in folders for name in files for path in folder.glob(f"{start}-*/{name}")})


def find_busy(folders: Sequence[Path], data: str) -> Path | None:
    """A run of a data set that somebody is at, whose record will say only once it is done who taught it."""
    return min(living(students(folders, data, CLAIM)), default=None)


def find_waiting(folders: Sequence[Path], data: str, number: int) -> Path | None:
    """A run of a set that was submitted or interrupted: it goes on with the teachers that it began with. Raises Damaged."""
    for place in students(folders, data, CONFIG, RECORD):
        record = read_record(place)
        if record is None or record["status"] == "interrupted":
            config = record["config"] if record else read_config(place / CONFIG) or {}
            if (config.get("teachers") or {}).get("set") == number and config["data"]["name"] == data:
                return place
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m harness.bank", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("add", "list", "remove"))
    parser.add_argument("given", nargs="*", metavar="FILE|OPTION=VALUE|RUNS")
    parser.add_argument("--mean", type=numbers, help="of each channel, of pixels in [0, 1]")
    parser.add_argument("--sd", type=numbers, help="of each channel, of pixels in [0, 1]")
    parser.add_argument("--classes", type=lines, metavar="FILE", help="what the outputs stand for, a line each")
    options = parser.parse_intermixed_args(arguments)
    overrides = [text for text in options.given if "=" in text and not Path(text).exists()]
    files = [Path(text) for text in options.given if text not in overrides]
    console = Console()
    try:
        if options.action == "list":
            show(files or [Path("runs")], console)
        elif options.action == "remove":
            remove(overrides, console)
        elif files:
            add(files, overrides, options, console)
        else:
            raise ConfigError("no file to add: name one or more")
    except (ConfigError, Damaged, Claimed, OSError) as error:
        console.close()
        complain(error)
        return 2
    return 0


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def lines(file: str) -> list[str]:
    try:
        return [line.strip() for line in Path(file).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{file} cannot be read: {error}") from error


if __name__ == "__main__":
    run_command(main)
