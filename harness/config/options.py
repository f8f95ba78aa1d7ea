"""The configuration of a run: this file is its manual.

`python -m harness method=combined data=digits train.epochs=20 seed=3` sets any of it; `-m` sweeps over lists. Groups
(method, data, train) are chosen by name; each method's options are the fields of its class in `methods/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING


@dataclass
class Data:
    """`data=NAME`, or `data=MODULE:FUNCTION` for a set of your own."""

    name: str = "digits"
    root: str | None = None  # folder of the files, where the set is not part of the package; None: data
    download: bool = False  # get what is missing there; checksums are verified
    # Train images held out for validation, of folders the same share of each class; None: as the set's module in
    # harness/training/data says.
    validation: int | None = None
    # Images to train on, of those that are not held out, which stay the same: as many of each class as its share. A
    # smaller number is a part of every larger one, and teachers learn from the same. None: all.
    train: int | None = None
    image_size: int = 64  # of folder and imagenet: images are scaled to it
    memory_gb: float = 4.0  # of folder and imagenet: sets that would be larger decoded stay in files, read by workers
    # How closely sets in files are looked at to know them again: sample (names, sizes, a part of each file) or full.
    verify: str = "sample"
    workers: int | None = None  # processes that read such sets; None: one a core, at most 16; 0: none beside the run's
    padding: int = 1  # random crops after padding this many black pixels; sets in files: random parts of any shape
    flip: bool = False  # random mirror images
    randaugment: int = 0  # random operations an image, of those in harness/training/data/randaugment.py
    magnitude: int = 9  # of randaugment: from 0 to 30, the strongest
    cutout: int = 0  # side in pixels of a square, anywhere in the image, that shows the set's mean colour
    # What a set of your own is asked for by name, as in +data.options.size=28; see harness/training/data/brought.py.
    options: dict[str, Any] = field(default_factory=dict)


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
    accumulate: int = 1  # a batch goes through the networks in so many equal parts; batch norm sees one at a time
    optimiser: str = "sgd"  # or adamw
    momentum: float = 0.9  # of adamw: the first beta
    nesterov: bool = True
    label_smoothing: float = 0.0  # share of a label that is spread over all classes
    mixup: float = 0.0  # images and labels are mixed in pairs, lam ~ Beta(mixup, mixup); teachers see the mixed images
    average: str = "none"  # what is deployed: the last weights, or their mean over steps (ema) or over epochs (swa)
    ema_decay: float = 0.999
    swa_start: float = 0.75  # share of the epochs after which the mean begins; batch norm is re-estimated
    weight_decay: float = 5e-4  # L2 on every parameter; factors of members are pulled to 1
    # float32, exactly; tf32: on GPUs, convolutions and matrix products of a step with ten bits of fraction; bfloat16:
    # autocast, losses stay in float32. Evaluation is in float32 always.
    precision: str = "float32"
    compile: str | None = (
        None  # torch.compile's mode: default, reduce-overhead (CUDA graphs), max-autotune; None: eager
    )
    # On GPUs, steps are captured as CUDA graphs and replayed, which costs the host next to nothing; does not change the
    # result. Not with train.compile, nor of a method that does not say that it can be.
    capture: bool = True
    channels_last: bool | None = None  # memory format of images and weights; None: on GPUs, where it is the faster one
    checkpoint_every: int = 5  # epochs between checkpoints; does not change the result


# What a teacher set's recipe can say: any of a recipe's options, of its type, or nothing of it.
TeacherTrain = make_dataclass("TeacherTrain", [(name, of, MISSING) for name, of in get_type_hints(Train).items()])


@dataclass
class TeacherSet:
    """Which teachers a student learns from; they are trained once and kept in the bank."""

    size: int = 4  # M
    set: int = 0  # sets are disjoint: no two share a random stream
    model: str | None = None  # their network; None: the student's, with its options
    network: dict[str, Any] = field(default_factory=dict)  # options of teachers.model, where that is of your own
    train: TeacherTrain = field(default_factory=TeacherTrain)  # their recipe's differences from `train`
    # Their answers for every crop and mirror image, computed once and kept in the bank (see harness/run/views.py): views,
    # none, or auto: where building them costs no more than one run saves. A perturbation saves one pass a step.
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
    # fails does not hurt (under MPS it may, see slurm/OPERATORS.md); as many as fit into the memory of GPU and host by
    # earlier records. With hydra/launcher=basic too.
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
    data: Data = MISSING
    train: Train = MISSING
    # preresnet_tiny, preresnet20, wrn16_2, wrn28_4, wrn28_10 ...; MODULE:FUNCTION for one of your own, whose options are
    # given as +network.KEY=VALUE (see harness/training/networks/brought.py)
    model: str = "preresnet_tiny"
    network: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    teachers: TeacherSet = field(default_factory=TeacherSet)
    evaluate: Evaluate = field(default_factory=Evaluate)
    tuned: Any = None  # a file of python -m harness.tune, whose options a method gets; a run knows what was tuned
    tune: Any = None  # what a tuning tries, see harness/tune.py
    study: Any = None  # what a sweep asks, for analysis: question, primary metric, families, margins

    runs: str = "runs"  # folder of run directories
    bank: str | None = None  # folder of trained teachers; None: RUNS/teachers
    device: str = "auto"  # cpu, cuda, cuda:1; auto: a GPU where there is one; of several that with the most free memory
    # Devices of this machine that a run is trained on, each a process; a SLURM job's tasks say it there (see
    # slurm/OPERATORS.md). Does not change the result but by rounding.
    devices: int = 1
    deterministic: bool = (
        False  # on a GPU, only algorithms that repeat themselves bit for bit (a CPU's always do); slower
    )
    # Of torch on the CPU, where their number decides the last digits of a result; None: one for preresnet_tiny, else the
    # cores that the process may use, in a job no more than it was granted.
    threads: int | None = None
    force: bool = False  # run again what is done
    fail_fast: bool = False  # a sweep's first failure cancels what has not finished
    harness: Harness = field(default_factory=Harness)
    sweep: SweepOptions = field(default_factory=SweepOptions)


@dataclass
class SweeperOptions:
    """`hydra.sweeper`: what a preset in `sweeps/` sweeps over."""

    _target_: str = "hydra_plugins.harness.HarnessSweeper"
    params: dict[str, Any] = field(default_factory=dict)  # overrides, such as {seed: range(8)}
    # Alternatives that are no product: ["method=kd", "method=combined method.step=2"]; with hydra.launcher.* in them,
    # jobs that ask for more than others: "model=wrn28_4 hydra.launcher.mem_gb=16"
    arms: list[str] = field(default_factory=list)


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
VERIFY = ("sample", "full")
CHOICES = {
    "schedule": ("cosine", "linear", "step", "constant"),
    "optimiser": ("sgd", "adamw"),
    "precision": ("float32", "tf32", "bfloat16"),
    "average": ("none", "ema", "swa"),
    "compile": (None, "default", "reduce-overhead", "max-autotune"),
}
