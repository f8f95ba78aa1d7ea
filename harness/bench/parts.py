"""The parts of an acceptance: commands of their own, each with what it is allowed, in two sizes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """A command of Python's, and the file where it leaves what it found; {folder} is the acceptance's."""

    name: str
    title: str
    seconds: float  # that it may take, beside what those before it left
    command: list[str]
    output: str
    environment: dict[str, str] = field(default_factory=dict)
    fine: tuple[int, ...] = (0,)  # exit codes that say that it came to an end


@dataclass(frozen=True)
class Sizes:
    """How large the parts are: options of harness.bench and of its packing, each with seconds; and of a sweep.

    Compiling takes minutes, so that it comes last: what fits into the time comes first.
    """

    patience: float  # times the seconds of each part
    network: str  # of all ladders
    ladders: tuple[tuple[float, str], ...]
    last: tuple[float, str]  # one more ladder, for the time that is left in the end
    packing: str
    sweep: dict[str, str]


LARGE = Sizes(
    patience=1,
    network="model=wrn28_4 device=cuda",
    ladders=(
        (85, "batch=128 rounds=3 steps=4 --rungs 1,2,3,4 --naive methods=supervised,weight_averaging,combined"),
        (60, "batch=512 rounds=3 steps=3 --rungs 1,2,3,4 --naive methods=supervised,combined"),
    ),
    last=(0, "batch=512 rounds=3 steps=3 --rungs 5 methods=supervised,combined"),
    packing="model=preresnet20 batch=128 methods=kd precision=tf32 device=cuda",
    sweep={"model": "preresnet20", "train": "short", "sweep.pack": "5"},
)
# A rehearsal on a CPU, of a machine that may be busy.
SMALL = Sizes(
    patience=10,
    network="model=preresnet8 size=8 classes=3 teachers=2 rounds=2 device=cpu threads=1",
    ladders=(
        (45, "batch=4 --rungs 1,2,3 --naive methods=supervised,combined"),
        (35, "batch=8 --rungs 1,2,3 --naive methods=combined"),
        (60, "batch=4 --rungs 5 methods=supervised"),
    ),
    last=(60, "batch=8 --rungs 5 methods=supervised"),
    packing="model=preresnet8 size=8 classes=3 teachers=2 batch=4 methods=kd device=cpu",
    sweep={"train": "smoke", "teachers.size": "2", "device": "cpu", "threads": "1", "sweep.pack": "2"},
)
MACHINE = Part("machine", "the machine", 25, ["-m", "harness.bench.machine", "{folder}/machine.json"], "machine.json")


def plan(sizes: Sizes, sweep: list[str]) -> list[Part]:
    """What comes after the machine, in this order; `sweep` are options of the sweep, before those of its size."""
    return [
        check(195),
        *(climb(f"ladder_{k + 1}", sizes, *ladder) for k, ladder in enumerate(sizes.ladders)),
        pack("packing", "runs beside each other", sizes, 30),
        pack("packing_mps", "runs beside each other, with MPS", sizes, 30, "--mps"),
        study(sizes, sweep, 55),
        climb("ladder_last", sizes, *sizes.last),
    ]


def check(seconds: float) -> Part:
    """The checks that need a GPU, which report to a file; some that fail are a finding."""
    command = "-m pytest -m gpu tests/gpu -q -p no:cacheprovider -o addopts="
    page = {"HARNESS_GPU_PAGE": "{folder}/checks.jsonl"}
    return Part("checks", "checks", seconds, command.split(), "checks.jsonl", page, fine=(0, 1))


def climb(name: str, sizes: Sizes, seconds: float, options: str) -> Part:
    """Rungs of the ladder."""
    command = f"-m harness.bench --ladder --output {{folder}}/{name}.json {sizes.network} {options}"
    return Part(name, f"ladder: {options}", seconds, command.split(), f"{name}.json")


def pack(name: str, title: str, sizes: Sizes, seconds: float, *flags: str) -> Part:
    command = ["-m", "harness.bench.packing", f"{{folder}}/{name}.json", *flags, *sizes.packing.split()]
    return Part(name, title, seconds, command, f"{name}.json")


def study(sizes: Sizes, sweep: list[str], seconds: float) -> Part:
    """A sweep of all methods as users start it."""
    given = {name: value for name, _, value in (option.partition("=") for option in sweep)}
    options = [f"{name}={value}" for name, value in {**sizes.sweep, **given}.items()]
    command = "-m harness -m method=all seed=0 hydra/launcher=submitit_local runs={folder}/runs"
    return Part("sweep", "a sweep", seconds, [*command.split(), *options], "runs")
