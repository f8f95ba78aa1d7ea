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
    """How large the parts are: options of harness.bench, of its packing, and of a sweep."""

    patience: float  # times the seconds of a part
    ladder: str
    batches: dict[int, str]  # batch size -> options of its ladder
    compiled: str  # further options of compiled rungs: compiling takes a minute a method
    rungs: str  # compiled ones
    packing: str
    sweep: dict[str, str]


LARGE = Sizes(
    patience=1,
    ladder="model=wrn28_4 device=cuda",
    batches={128: "rounds=5 steps=5", 512: "rounds=3 steps=3"},
    compiled="methods=supervised,combined",
    rungs="4,5",
    packing="model=preresnet20 batch=128 methods=kd precision=tf32 device=cuda",
    sweep={"model": "preresnet20", "train": "short", "sweep.pack": "5"},
)
# A rehearsal on a CPU, of a machine that may be busy.
SMALL = Sizes(
    patience=10,
    ladder="model=preresnet8 size=8 classes=3 teachers=2 methods=supervised,combined device=cpu threads=1",
    batches={4: "rounds=2", 8: "rounds=2"},
    compiled="methods=supervised",
    rungs="4",
    packing="model=preresnet8 size=8 classes=3 teachers=2 batch=4 methods=kd device=cpu",
    sweep={"train": "smoke", "teachers.size": "2", "device": "cpu", "threads": "1", "sweep.pack": "2"},
)
MACHINE = Part("machine", "the machine", 25, ["-m", "harness.bench.machine", "{folder}/machine.json"], "machine.json")


def plan(sizes: Sizes, sweep: list[str]) -> list[Part]:
    """What comes after the machine, in this order; `sweep` are options of the sweep, before those of its size."""
    eager, compiled = (30, 45), (38, 38)
    return [
        check(195),
        *(climb("eager", batch, sizes, "1,2,3", "--naive", s) for batch, s in zip(sizes.batches, eager, strict=True)),
        *(
            climb("compiled", batch, sizes, sizes.rungs, sizes.compiled, s)
            for batch, s in zip(sizes.batches, compiled, strict=True)
        ),
        pack("packing", "runs beside each other", sizes, 28),
        pack("packing_mps", "runs beside each other, with MPS", sizes, 30, "--mps"),
        study(sizes, sweep, 50),
    ]


def check(seconds: float) -> Part:
    """The checks that need a GPU, which report to a file; some that fail are a finding."""
    command = "-m pytest -m gpu tests/gpu -q -p no:cacheprovider -o addopts="
    page = {"HARNESS_GPU_PAGE": "{folder}/checks.jsonl"}
    return Part("checks", "checks", seconds, command.split(), "checks.jsonl", page, fine=(0, 1))


def climb(kind: str, batch: int, sizes: Sizes, rungs: str, further: str, seconds: float) -> Part:
    """Rungs of the ladder at a batch size."""
    name = f"ladder_{kind}_{batch}"
    command = f"-m harness.bench --ladder --rungs {rungs} {sizes.ladder} batch={batch} {sizes.batches[batch]} {further}"
    output = ["--output", f"{{folder}}/{name}.json"]
    return Part(name, f"ladder at B = {batch}, {kind}", seconds, [*command.split(), *output], f"{name}.json")


def pack(name: str, title: str, sizes: Sizes, seconds: float, *flags: str) -> Part:
    command = ["-m", "harness.bench.packing", f"{{folder}}/{name}.json", *flags, *sizes.packing.split()]
    return Part(name, title, seconds, command, f"{name}.json")


def study(sizes: Sizes, sweep: list[str], seconds: float) -> Part:
    """A sweep of all methods as users start it."""
    given = {name: value for name, _, value in (option.partition("=") for option in sweep)}
    options = [f"{name}={value}" for name, value in {**sizes.sweep, **given}.items()]
    command = "-m harness -m method=all seed=0 hydra/launcher=submitit_local runs={folder}/runs"
    return Part("sweep", "a sweep", seconds, [*command.split(), *options], "runs")
