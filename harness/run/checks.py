"""What cannot be run is refused in one line, before anything is."""

from __future__ import annotations

import math
from typing import Any

import methods
from harness.config import ConfigError
from harness.config.methods import build_method
from harness.config.options import CHOICES, FOLDERS, VERIFY
from harness.run.names import check_name
from harness.runtime import patience
from harness.store.identity import flatten


def validate(config: dict[str, Any]) -> None:
    """Raise ConfigError, in one line, for what would fail later or mean nothing. Builds no network and reads no data."""
    chosen = config["method"]["name"]
    if members := methods.groups().get(chosen):
        raise ConfigError(
            f"method={chosen} is a group of variants: sweep over it with -m (in Python: harness.sweep), or choose one "
            f"of {', '.join(members)}"
        )
    check_name("method", chosen)
    method = build_method(config)
    teachers = config["teachers"]
    for name, value in flatten(config).items():
        require(not isinstance(value, float) or math.isfinite(value), f"{name} must be a number, not {value}")
    require(
        not isinstance(config["tuned"], str),
        f"tuned={config['tuned']} is given on the command line, or in a sweep's params",
    )
    check_seed(config)
    validate_data(config["data"])
    for name in config["evaluate"]["ood"] or ():
        check_name("data", name)
        require(
            name not in (*FOLDERS, config["data"]["name"]),
            f"evaluate.ood={name} is no other data set that goes by its name",
        )
    require(teachers["size"] >= 1, f"teachers.size must be at least 1, not {teachers['size']}")
    require(teachers["set"] >= 0, f"teachers.set must not be negative, not {teachers['set']}")
    caches = ("auto", "views", "none")
    require(teachers["cache"] in caches, f"teachers.cache is one of {', '.join(caches)}, not {teachers['cache']!r}")
    validate_recipe(config["train"], "train")
    if teachers["train"]:
        validate_recipe({**config["train"], **teachers["train"]}, "teachers.train")
    require(
        method.minimum_teachers() <= teachers["size"],
        f"method={chosen} needs at least {method.minimum_teachers()} teachers: teachers.size={teachers['size']}",
    )
    require(
        method.most_teachers is None or teachers["size"] <= method.most_teachers,
        f"method={chosen} learns from {method.most_teachers} teachers at most: teachers.size={teachers['size']}",
    )
    devices = config["devices"]
    require(devices >= 1, f"devices must be at least 1, not {devices}")
    require(
        devices == 1 or ":" not in config["device"],
        f"device={config['device']} is one GPU, devices={devices} are several: give one of the two",
    )
    validate_shares(config, devices)
    options = config["sweep"]
    require(
        devices == 1 or options["pack"] == 1,
        f"sweep.pack={options['pack']} puts several runs on a device, devices={devices} a run on several: give one of the two",
    )
    require(options["pack"] >= 1, f"sweep.pack must be at least 1, not {options['pack']}")
    require(options["poll_s"] > 0, f"sweep.poll_s must be positive, not {options['poll_s']}")
    require(
        options["pack"] == 1 or options["workers"] is None,
        "sweep.pack and sweep.workers both say how many run at a time: give one",
    )
    check_name("model", config["model"], config["network"])
    require(
        bool(teachers["model"]) or not teachers["network"],
        "teachers.network has options of teachers.model, which is not given: the teachers' network is the student's",
    )
    if teachers["model"]:
        check_name("model", teachers["model"], teachers["network"])


def check_seed(config: dict[str, Any]) -> None:
    """Raise ConfigError for a seed that the run's options were tuned on."""
    tuned_on = (config["tuned"] or {}).get("seeds", ())
    require(
        config["seed"] not in tuned_on,
        f"seed={config['seed']} was tuned on, as all of {tuned_on}: a study has seeds of its own",
    )


def validate_data(data: dict[str, Any]) -> None:
    """Raise ConfigError for options of a data set that mean nothing."""
    check_name("data", data["name"], data["options"])
    for name in ("validation", "train", "image_size"):
        chosen = data[name]
        require(chosen is None or chosen >= 1, f"data.{name} must be at least 1, not {chosen}")
    for name in ("padding", "randaugment", "cutout"):
        require(data[name] >= 0, f"data.{name} must not be negative, not {data[name]}")
    magnitude = data["magnitude"]
    require(0 <= magnitude <= 30, f"data.magnitude must lie in [0, 30], not {magnitude}")
    for name in ("workers", "memory_gb"):
        chosen = data[name]
        require(chosen is None or chosen >= 0, f"data.{name} must not be negative, not {chosen}")
    verify = data["verify"]
    require(verify in VERIFY, f"data.verify is one of {', '.join(VERIFY)}, not {verify!r}")
    name = data["name"]
    require(name not in FOLDERS or data["root"] is not None, f"data={name} needs data.root=FOLDER")


def validate_recipe(train: dict[str, Any], prefix: str) -> None:
    """Raise ConfigError for a recipe that means nothing; `prefix` names it."""
    for name in ("epochs", "batch_size", "checkpoint_every", "accumulate", "steps_per_epoch", "lr_batch_size"):
        require(train[name] is None or train[name] >= 1, f"{prefix}.{name} must be at least 1, not {train[name]}")
    require(train["lr"] > 0, f"{prefix}.lr must be positive, not {train['lr']}")
    require(train["weight_decay"] >= 0, f"{prefix}.weight_decay must not be negative, not {train['weight_decay']}")
    sgd = train["optimiser"] == "sgd"
    require(
        not (sgd and train["nesterov"] and train["momentum"] == 0),
        f"{prefix}.momentum=0 has nothing for Nesterov to look ahead with: add {prefix}.nesterov=false",
    )
    require(train["mixup"] >= 0, f"{prefix}.mixup must not be negative, not {train['mixup']}")
    for name in ("momentum", "label_smoothing", "ema_decay", "swa_start"):
        require(0 <= train[name] < 1, f"{prefix}.{name} must lie in [0, 1), not {train[name]}")
    for name in CHOICES:
        check_choice(name, train[name], f"{prefix}.")
    warmup, epochs = train["warmup_epochs"], train["epochs"]
    require(
        0 <= warmup < epochs or epochs == 1,
        f"{prefix}.warmup_epochs={warmup} leaves nothing of {prefix}.epochs={epochs}",
    )
    size, parts = train["batch_size"], train["accumulate"]
    require(size % parts == 0, f"{prefix}.batch_size={size} does not divide into {prefix}.accumulate={parts} parts")


def validate_shares(config: dict[str, Any], devices: int) -> None:
    """Raise ConfigError where the batches of a run, or of its teachers, have no equal shares for so many devices, or
    these would not know how long to wait for each other.
    """
    if devices > 1:
        try:
            patience.of_ranks()
        except ValueError as error:
            raise ConfigError(str(error)) from error
    train = config["train"]
    for recipe, prefix in ((train, "train"), ({**train, **config["teachers"]["train"]}, "teachers.train")):
        size, parts = recipe["batch_size"], recipe["accumulate"]
        within = f" in {prefix}.accumulate={parts} parts" if parts > 1 else ""
        require(
            size % (parts * devices) == 0,
            f"{prefix}.batch_size={size} does not divide among {devices} devices{within}",
        )


def check_choice(name: str, chosen: str | None, prefix: str = "") -> None:
    """Raise ConfigError for a value that an option of a recipe cannot have."""
    known = CHOICES[name]
    require(chosen in known, f"{prefix}{name} is one of {', '.join(map(str, known))}, not {chosen!r}")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
