"""The configuration of a run: this file is its manual.

`python -m harness method=combined data=digits train.epochs=20 seed=3` sets any of it; `-m` sweeps over lists. Groups
(method, data, train) are chosen by name; each method's options are the fields of its class in `methods/`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from omegaconf import MISSING

import methods

if TYPE_CHECKING:
    from methods.method import Method


class ConfigError(ValueError):
    """A configuration that cannot be run; its message is the one line that says so."""


@dataclass
class Data:
    """`data=NAME`."""

    name: str = "digits"
    root: str | None = None  # folder of the files, where the set is not part of the package; None: data
    download: bool = False  # get what is missing there; checksums are verified
    validation: int | None = None  # images held out for validation; None: as the set's module in harness/data says
    image_size: int = 64  # of folder and imagenet: images are scaled to it
    memory_gb: float = 4.0  # of folder and imagenet: sets that would be larger decoded stay in files, read by workers
    workers: int | None = None  # processes that read such sets; None: one a core, at most 16; 0: none beside the run's
    padding: int = 1  # random crops after padding this many black pixels; sets in files: random parts of any shape
    flip: bool = False  # random mirror images
    randaugment: int = 0  # random operations an image, of those in harness/data/randaugment.py
    magnitude: int = 9  # of randaugment: from 0 to 30, the strongest
    cutout: int = 0  # side in pixels of a square, anywhere in the image, that shows the set's mean colour


@dataclass
class Train:
    """`train=NAME`: a recipe; teachers are trained by it too (see teachers.train)."""

    epochs: int = 40
    batch_size: int = 50
    lr: float = 0.05  # the peak: linear warm-up from 0, then half a cosine to 0, by step
    warmup_epochs: int = 4
    lr_batch_size: int | None = None  # the batch size that lr is meant for: lr grows with batch_size; None: it does not
    schedule: str = "cosine"  # after the warm-up: cosine, linear (both to 0), step (a tenth at 50 and 75 %), constant
    steps_per_epoch: int | None = None  # at most; None: every image once
    accumulate: int = 1  # a batch goes through the networks in so many equal parts
    optimiser: str = "sgd"  # or adamw
    momentum: float = 0.9  # of adamw: the first beta
    nesterov: bool = True
    label_smoothing: float = 0.0  # share of a label that is spread over all classes
    mixup: float = 0.0  # images and labels are mixed in pairs, lam ~ Beta(mixup, mixup); teachers see the mixed images
    average: str = "none"  # what is deployed: the last weights, or their mean over steps (ema) or over epochs (swa)
    ema_decay: float = 0.999
    swa_start: float = 0.75  # share of the epochs after which the mean begins; batch norm is re-estimated
    weight_decay: float = 5e-4  # L2 on every parameter; factors of members are pulled to 1
    precision: str = "float32"  # or bfloat16: autocast, losses stay in float32
    compile: str | None = (
        None  # torch.compile's mode: default, reduce-overhead (CUDA graphs), max-autotune; None: eager
    )
    channels_last: bool | None = None  # memory format of images and weights; None: on GPUs, where it is the faster one
    checkpoint_every: int = 5  # epochs between checkpoints; does not change the result


@dataclass
class TeacherSet:
    """Which teachers a student learns from; they are trained once and kept in the bank."""

    size: int = 4  # M
    set: int = 0  # sets are disjoint: no two share a random stream
    model: str | None = None  # their network; None: the student's
    train: dict[str, Any] = field(default_factory=dict)  # their recipe's differences from `train`
    # Their answers for every crop and mirror image, computed once and kept in the bank (see harness/views.py): views,
    # none, or auto: where the method asks about these and building them costs no more than one run saves.
    cache: str = "auto"


@dataclass
class Evaluate:
    """What is measured beside accuracy, likelihood and calibration."""

    # Diversity, fidelity, loss barriers (see harness.diagnostics); None: on digits, where they take a second.
    diagnostics: bool | None = None
    shift: bool = False  # on corrupted test images: the official files in data.root, else a built-in suite
    ood: list[str] = field(default_factory=list)  # data sets to tell from this one by confidence, such as [svhn]


@dataclass
class Harness:
    """Of a whole sweep, not of its runs."""

    plan: bool = False  # print what would run, and submit nothing


@dataclass
class SweepOptions:
    """Of a whole sweep, not of its runs."""

    detach: bool = False  # submit to SLURM, students waiting there for their teachers, and return at once
    # Runs at a time, as processes of this machine; None: one in this process, or with hydra/launcher=submitit_local one
    # on each GPU or pair of cores.
    workers: int | None = None
    poll_s: float = 15.0  # seconds between questions to SLURM about waiting and running jobs; records are seen at once
    # Runs that share one device: a GPU, or a machine's (a job's) cores. Each is a process of its own, which one that
    # fails does not hurt; as many as fit into memory by earlier records. With hydra/launcher=basic too.
    pack: int = 1


@dataclass
class Config:
    """A run. `seed` decides initial weights, order, augmentation and perturbation, each by its own stream; the split is
    the data set's.
    """

    defaults: list[Any] = field(
        default_factory=lambda: [
            "_self_",
            {"method": "combined"},
            {"data": "digits"},
            {"train": "digits"},
            {"override hydra/job_logging": "none"},
            {"override hydra/hydra_logging": "none"},
            {"override hydra/sweeper": "harness"},
        ]
    )
    hydra: Any = field(
        default_factory=lambda: {
            "searchpath": ["pkg://slurm"],  # launcher presets
            # Runs name their own folders; Hydra's dated ones would only be in the way.
            "output_subdir": None,
            "run": {"dir": "."},
            "sweep": {"dir": "${runs}", "subdir": "."},
            "job": {"name": "harness", "chdir": False},
        }
    )
    method: Any = MISSING
    data: Any = MISSING
    train: Any = MISSING
    model: str = "preresnet_tiny"  # preresnet_tiny, preresnet20, wrn16_2, wrn28_4, wrn28_10 ...
    seed: int = 0
    teachers: TeacherSet = field(default_factory=TeacherSet)
    evaluate: Evaluate = field(default_factory=Evaluate)
    study: Any = None  # what a sweep asks, for analysis: question, primary metric, families, margins

    runs: str = "runs"  # folder of run directories
    bank: str | None = None  # folder of trained teachers; None: RUNS/teachers
    device: str = "auto"  # cpu, cuda, cuda:1; auto takes a GPU where there is one
    threads: int | None = None  # of torch on the CPU; None: SLURM's for the job, one for preresnet_tiny, else torch's
    force: bool = False  # run again what is done
    fail_fast: bool = False  # a sweep's first failure cancels what has not finished
    harness: Harness = field(default_factory=Harness)
    sweep: SweepOptions = field(default_factory=SweepOptions)


@dataclass
class SweeperOptions:
    """`hydra.sweeper`: what a preset in `sweeps/` sweeps over."""

    _target_: str = "hydra_plugins.harness.HarnessSweeper"
    params: dict[str, Any] | None = None  # overrides, such as {seed: range(8)}
    arms: list[str] | None = None  # alternatives that are no product: ["method=kd", "method=combined method.step=2"];
    # with hydra.launcher.* in them, jobs that ask for more than others: "model=wrn28_4 hydra.launcher.mem_gb=16"


DATA = {
    "digits": Data(),
    "fashion_mnist": Data("fashion_mnist", padding=2, flip=True),
    "cifar10": Data("cifar10", padding=4, flip=True),
    "cifar100": Data("cifar100", padding=4, flip=True),
    "svhn": Data("svhn", padding=4),
    "tiny_imagenet": Data("tiny_imagenet", padding=8, flip=True),
    "folder": Data("folder", padding=8, flip=True),
    "imagenet": Data("imagenet", image_size=224, padding=8, flip=True),
}
FOLDERS = ("folder", "imagenet")  # data.root is the set itself
TRAIN = {
    "digits": Train(),
    "smoke": Train(epochs=1, batch_size=32, warmup_epochs=0, steps_per_epoch=20),  # does it run at all
    "short": Train(epochs=30, batch_size=128, lr=0.1, warmup_epochs=2),
    "paper": Train(epochs=200, batch_size=128, lr=0.1, warmup_epochs=5),
    "imagenet": Train(
        epochs=90, batch_size=256, lr=0.1, lr_batch_size=256, warmup_epochs=5, weight_decay=1e-4, precision="bfloat16"
    ),
}
CHOICES = {
    "schedule": ("cosine", "linear", "step", "constant"),
    "optimiser": ("sgd", "adamw"),
    "precision": ("float32", "bfloat16"),
    "average": ("none", "ema", "swa"),
    "compile": (None, "default", "reduce-overhead", "max-autotune"),
}
# Where files lie, what runs them, how often they save, what is asked of them: none of it changes a result. (Diagnostics
# are asked of a student's members, which are gone once they are merged: that needs another run.)
INCIDENTAL = (
    *("runs", "bank", "device", "threads", "force", "fail_fast", "harness", "sweep", "study"),
    *("data.root", "data.download", "data.workers", "train.checkpoint_every", "evaluate.shift", "evaluate.ood"),
)


def method_options(name: str) -> type:
    """The options of `method=name`: its name, then the fields of its class."""
    cls = methods.load(name)
    types = get_type_hints(cls)
    options = [
        (f.name, types[f.name], field(default=f.default, default_factory=f.default_factory)) for f in fields(cls)
    ]
    return make_dataclass(f"{cls.__name__}Options", [("name", str, field(default=name)), *options])


def method_defaults(name: str) -> dict[str, Any]:
    """Every option of a method with its default."""
    return asdict(methods.load(name)())


def build_method(config: dict[str, Any]) -> Method:
    """The Method of a run's configuration. Raises ConfigError where an option makes no sense."""
    options = {key: value for key, value in config["method"].items() if key != "name"}
    try:
        return methods.load(config["method"]["name"])(**options)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def teacher_config(config: dict[str, Any], member: int) -> dict[str, Any]:
    """The configuration that trains member m of a run's teacher set: a supervised run with streams of its own."""
    teachers = config["teachers"]
    return {
        **config,
        "method": {"name": "supervised", "reestimate_bn": False},
        "model": teachers["model"] or config["model"],
        "train": {**config["train"], **teachers["train"]},
        "seed": f"teacher/{teachers['set']}/{member}",
        "teachers": {"size": 0, "set": teachers["set"], "model": None, "train": {}, "cache": "none"},
        "evaluate": {key: False for key in config["evaluate"]},
    }


def run_hash(config: dict[str, Any]) -> str:
    """Twelve hex digits of what matters for the result: equal hashes, equal runs."""
    kept = json.loads(json.dumps(config))
    for key in INCIDENTAL:
        if key == "data.root" and config["data"]["name"] == "folder":
            continue  # where the images lie is all that tells one such set from another
        *groups, name = key.split(".")
        node = kept
        for group in groups:
            node = node[group]
        node.pop(name, None)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def run_directory(config: dict[str, Any]) -> Path:
    """RUNS/data-model-method-sSEED-HASH; a teacher's is BANK/data-model-setS-mM-HASH."""
    start = f"{config['data']['name']}-{config['model'].replace('/', '_')}"  # timm's names are timm/NAME
    if is_teacher(config):
        _, chosen, member = config["seed"].split("/")
        return bank_folder(config) / f"{start}-set{chosen}-m{member}-{run_hash(config)}"
    name = f"{start}-{config['method']['name']}-s{config['seed']}-{run_hash(config)}"
    return Path(config["runs"]) / name


def bank_folder(config: dict[str, Any]) -> Path:
    """Where trained teachers are kept."""
    return Path(config["bank"] or Path(config["runs"]) / "teachers")


def settle_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its folders as they are meant: `~` is home, and the data lie where they lie from anywhere.

    Symbolic links stay: what tells one `data=folder` from another is the path as it was given.
    """
    for node, key in ((config, "runs"), (config, "bank"), (config["data"], "root")):
        if node[key] is not None:
            node[key] = str(Path(node[key]).expanduser())
    if config["data"]["root"] is not None:
        config["data"]["root"] = str(Path(config["data"]["root"]).absolute())
    return config


def is_teacher(config: dict[str, Any]) -> bool:
    return isinstance(config["seed"], str)


def validate(config: dict[str, Any]) -> None:
    """Raise ConfigError, in one line, for what would fail later or mean nothing. Builds no network and reads no data."""
    method = build_method(config)
    teachers = config["teachers"]
    for name in ("validation", "image_size"):
        chosen = config["data"][name]
        require(chosen is None or chosen >= 1, f"data.{name} must be at least 1, not {chosen}")
    for name in config["evaluate"]["ood"] or ():
        check_name("data", name)
        require(
            name not in (*FOLDERS, config["data"]["name"]),
            f"evaluate.ood={name} is no other data set that goes by its name",
        )
    for name in ("padding", "randaugment", "cutout"):
        require(config["data"][name] >= 0, f"data.{name} must not be negative, not {config['data'][name]}")
    magnitude = config["data"]["magnitude"]
    require(0 <= magnitude <= 30, f"data.magnitude must lie in [0, 30], not {magnitude}")
    for name in ("workers", "memory_gb"):
        chosen = config["data"][name]
        require(chosen is None or chosen >= 0, f"data.{name} must not be negative, not {chosen}")
    name = config["data"]["name"]
    require(name not in FOLDERS or config["data"]["root"] is not None, f"data={name} needs data.root=FOLDER")
    require(teachers["size"] >= 1, f"teachers.size must be at least 1, not {teachers['size']}")
    require(teachers["set"] >= 0, f"teachers.set must not be negative, not {teachers['set']}")
    caches = ("auto", "views", "none")
    require(teachers["cache"] in caches, f"teachers.cache is one of {', '.join(caches)}, not {teachers['cache']!r}")
    unknown = sorted(set(teachers["train"]) - {f.name for f in fields(Train)})
    require(not unknown, f"teachers.train knows no option {', '.join(unknown)}")
    validate_recipe(config["train"], "train")
    if teachers["train"]:
        validate_recipe({**config["train"], **teachers["train"]}, "teachers.train")
    require(
        method.minimum_teachers() <= teachers["size"],
        f"method={config['method']['name']} needs at least {method.minimum_teachers()} teachers: teachers.size={teachers['size']}",
    )
    options = config["sweep"]
    require(options["pack"] >= 1, f"sweep.pack must be at least 1, not {options['pack']}")
    require(
        options["pack"] == 1 or options["workers"] is None,
        "sweep.pack and sweep.workers both say how many run at a time: give one",
    )
    check_name("model", config["model"])
    if teachers["model"]:
        check_name("model", teachers["model"])


def validate_recipe(train: dict[str, Any], prefix: str) -> None:
    """Raise ConfigError for a recipe that means nothing; `prefix` names it."""
    for name in ("epochs", "batch_size", "checkpoint_every", "accumulate", "steps_per_epoch", "lr_batch_size"):
        require(train[name] is None or train[name] >= 1, f"{prefix}.{name} must be at least 1, not {train[name]}")
    require(train["lr"] > 0, f"{prefix}.lr must be positive, not {train['lr']}")
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


def check_choice(name: str, chosen: str | None, prefix: str = "") -> None:
    """Raise ConfigError for a value that an option of a recipe cannot have."""
    known = CHOICES[name]
    require(chosen in known, f"{prefix}{name} is one of {', '.join(map(str, known))}, not {chosen!r}")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def names(kind: str) -> list[str]:
    """What may follow `method=`, `data=`, `train=` or (as examples, the family being open) `model=`."""
    if kind == "method":
        return [*methods.groups()["all"], *methods.groups()["baselines"], *methods.groups()]
    if kind == "model":
        from harness.networks import EXAMPLES

        return list(EXAMPLES)
    return list({"data": DATA, "train": TRAIN}[kind])


def check_name(kind: str, name: str) -> None:
    """Raise ConfigError with the nearest name for one that is not known."""
    if kind == "model":
        from harness.networks import check

        try:
            return check(name)
        except ValueError as error:
            message = str(error)
    elif name in names(kind):
        return None
    else:
        message = f"unknown {kind} {name!r}"
    near = difflib.get_close_matches(name, names(kind), 1)
    guess = f"; did you mean {near[0]}?" if near else ";"
    raise ConfigError(f"{message}{guess} known: {', '.join(names(kind))}")


def register() -> None:
    """Tell Hydra the groups and their options."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="config", node=Config)
    store.store(group="hydra/sweeper", name="harness", node=SweeperOptions)
    for group, members in methods.groups().items():
        # A placeholder, so that Hydra can compose what the sweeper will expand; a single run of it is refused.
        store.store(group="method", name=group, node={"name": group, "stands_for": members})
        for name in members:
            store.store(group="method", name=name, node=method_options(name))
    for name, data in DATA.items():
        store.store(group="data", name=name, node=data)
    for name, train in TRAIN.items():
        store.store(group="train", name=name, node=train)
    for preset in sorted(resources.files("sweeps").iterdir(), key=lambda file: file.name):
        if preset.name.endswith(".yaml"):
            node = OmegaConf.create(preset.read_text())
            store.store(group="sweep", name=preset.name.removesuffix(".yaml"), node=node, package="_global_")
