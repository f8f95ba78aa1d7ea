"""What is measured: every method at work, on images of noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError

import methods
from harness import streams
from harness.bench import naive
from harness.config import ConfigError
from harness.config.options import TRAIN
from harness.run.checks import check_choice
from harness.training import arithmetic, networks
from harness.training.data import Dataset, Split
from harness.training.data.batches import Batch
from harness.training.trainer import Trainer
from methods.method import Method, Teachers

PLAIN = "supervised"


@dataclass
class Options:
    """OPTION=VALUE."""

    model: str = "wrn28_4"
    batch: int = 32
    device: str = "auto"
    methods: list[str] = field(default_factory=lambda: [PLAIN, *methods.groups()["all"]])  # always with the plain one
    teachers: int = 4  # M
    classes: int = 100  # K
    size: int = 32  # of the images, in pixels
    channels: int = 3
    precision: str = "float32"  # or tf32, bfloat16
    compile: str | None = None  # torch.compile's mode: default, reduce-overhead (CUDA graphs), max-autotune
    capture: bool = True  # steps as CUDA graphs: on GPUs, and not with compile
    channels_last: bool | None = None  # None: on GPUs
    rounds: int = 11
    steps: int = 1  # of each method in a round
    threads: int | None = None  # of torch on the CPU


def read_options(arguments: list[str]) -> Options:
    """Options from NAME=VALUE (lists as NAME=a,b). Raises ConfigError for what is no option or no such value."""
    if bad := [argument for argument in arguments if "=" not in argument]:
        raise ConfigError(f"{bad[0]!r} is no OPTION=VALUE; options: {', '.join(asdict(Options()))}")
    try:
        given = OmegaConf.from_dotlist(arguments)
        if "methods" in given:
            given.methods = str(given.methods).split(",")
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), given))
    except (OmegaConfBaseException, YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{first}; options: {', '.join(asdict(Options()))}") from error
    for name in ("precision", "compile"):
        check_choice(name, getattr(options, name))
    return options


class Subject:
    """One method at work: a student, its optimiser and its batches."""

    def __init__(self, name: str, method: Method, options: Options, data: Dataset, bank: list[nn.Module]):
        self.name, self.passes = name, method.passes(options.teachers)
        used = bank if method.teachers is None else bank[: method.teachers]
        recipe = {
            **asdict(TRAIN["paper"]),
            **{name: getattr(options, name) for name in ("precision", "compile", "capture", "channels_last")},
            "batch_size": options.batch,
        }
        self.trainer = Trainer(method, data, Teachers(used), recipe, padding=4, flip=True, seed=0)
        network = networks.build(
            options.model, data.classes, data.mean, data.sd, streams.generator(0, "init"), data.size
        )
        self.training = self.trainer.start(network.to(data.train.images.device))
        self.training.student.train()
        self.batches = self.endless()
        self.seconds: list[float] = []
        self.pipeline: list[float] = []

    def endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.trainer.batches.epoch(epoch)
            epoch += 1

    def step(self, count: int = 1) -> None:
        with arithmetic.of_steps(self.trainer.recipe["precision"]):
            for _ in range(count):
                self.trainer.take_step(self.training, next(self.batches))


def make_data(options: Options, device: torch.device) -> Dataset:
    """Noise in the shape of a data set."""
    count = max(1024, 4 * options.batch)
    stream = torch.Generator().manual_seed(0)
    shape = (count, options.channels, options.size, options.size)
    images = torch.randint(256, shape, generator=stream, dtype=torch.uint8)
    labels = torch.randint(options.classes, (count,), generator=stream)
    split = Split(images, labels).to(device)
    return Dataset(options.classes, (0.5,) * options.channels, (0.25,) * options.channels, split, split, split)


def make_subjects(options: Options, with_naive: bool, device: torch.device) -> list[Subject]:
    """The plain student first, then every method, each followed by its naive form. Raises ConfigError."""
    data = make_data(options, device)

    def network(seed: int | str) -> nn.Module:
        stream = streams.generator(seed, "init")
        return networks.build(options.model, data.classes, data.mean, data.sd, stream, data.size).to(device)

    every = methods.groups()["all"] + methods.groups()["baselines"]
    known = [name for name in every if methods.load(name).trained]
    if unknown := sorted(set(options.methods) - set(known)):
        raise ConfigError(f"unknown method {unknown[0]!r}; known: {', '.join(known)}")
    bank = [network(f"teacher/0/{m}") for m in range(options.teachers)]
    subjects = []
    for name in dict.fromkeys([PLAIN, *options.methods]):
        subjects.append(Subject(name, methods.load(name)(), options, data, bank))
        if with_naive and (method := naive.build(name)):
            subjects.append(Subject(name + naive.MARK, method, options, data, bank))
    return subjects
