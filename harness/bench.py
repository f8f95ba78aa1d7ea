"""`python -m harness.bench [OPTION=VALUE ...]`: what a training step of every method costs, against what it must cost.

Each method trains with the harness's own Trainer on images of noise, all in one process, taking turns: what else the
machine does meets all of them alike. A row says

    step ms     median time of a step, and half the distance of its quartiles
    ratio       median over rounds of its time by the plain student's of the same round
    floor       the ratio that its forward and backward passes would have (Method.passes / 3)
    gap         ratio / floor: what the method costs beyond its passes
    pipeline    share of a step that making its batch takes
    host        share of a step in which no operator runs (Python, autograd's bookkeeping, waiting)
    waits       times that a step waits for the device; on a CPU, numbers that Python reads out of tensors (the draw of a
                pair is one)
    memory      what a step needs beyond what lives between steps
    FLOP/s      of a step, and as a share of the best that a square matrix product reaches here

`--naive` adds each method as one would first write it (harness/naive.py), `--ladder` repeats all of it with one speed-up
more at a time (LADDER), `--json` prints one JSON object, `--profile FOLDER` writes a trace of one step of each method,
`--output FILE` writes the JSON there, too. Everything about a GPU, in one command:

    python -m harness.bench model=wrn28_4 batch=128 device=cuda steps=10 --naive --ladder --profile traces --output gpu.json
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import methods
from harness import memory, naive, networks, streams
from harness.config import TRAIN, ConfigError, check_choice
from harness.data import Dataset, Split
from harness.data.batches import Batch
from harness.progress import Console
from harness.record import write_atomically
from harness.run import choose_device
from harness.training import Trainer
from methods.method import Method, Teachers

PLAIN = "supervised"
WAITS = {
    "cpu": ("aten::_local_scalar_dense",),
    "cuda": ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"),
}
PRODUCTS = {"cpu": 2048, "cuda": 8192}  # side of the square matrices whose product shows the device's peak

# What `--ladder` adds, step by step. On a GPU float32 is TF32 inside convolutions, as torch has it.
LADDER: dict[str, dict[str, Any]] = {
    "eager float32": {"precision": "float32", "channels_last": False, "compile": None},
    "+ channels_last": {"channels_last": True},
    "+ bfloat16": {"precision": "bfloat16"},
    "+ compiled": {"compile": "default"},
    "+ CUDA graphs": {"compile": "reduce-overhead"},
}


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
    precision: str = "float32"  # or bfloat16
    compile: str | None = None  # torch.compile's mode: default, reduce-overhead (CUDA graphs), max-autotune
    channels_last: bool | None = None  # None: on GPUs
    rounds: int = 11
    steps: int = 1  # of each method in a round
    threads: int | None = None  # of torch on the CPU


class Subject:
    """One method at work: a student, its optimiser and its batches."""

    def __init__(self, name: str, method: Method, options: Options, data: Dataset, bank: list[nn.Module]):
        self.name, self.passes = name, method.passes(options.teachers)
        used = bank if method.teachers is None else bank[: method.teachers]
        recipe = {
            **asdict(TRAIN["paper"]),
            **{name: getattr(options, name) for name in ("precision", "compile", "channels_last")},
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

    known = methods.groups()["all"] + methods.groups()["baselines"]
    if unknown := sorted(set(options.methods) - set(known)):
        raise ConfigError(f"unknown method {unknown[0]!r}; known: {', '.join(known)}")
    bank = [network(f"teacher/0/{m}") for m in range(options.teachers)]
    subjects = []
    for name in dict.fromkeys([PLAIN, *options.methods]):
        subjects.append(Subject(name, methods.load(name)(), options, data, bank))
        if with_naive and (method := naive.build(name)):
            subjects.append(Subject(f"{name} (naive)", method, options, data, bank))
    return subjects


def clock(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds that an action takes, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_turns(subjects: list[Subject], options: Options, device: torch.device, console: Console) -> None:
    """Time every subject once a round, in an order that turns from round to round."""

    said = time.monotonic()
    for turn in range(options.rounds):
        shift = turn % len(subjects)
        for subject in subjects[shift:] + subjects[:shift]:
            subject.seconds.append(clock(functools.partial(subject.step, options.steps), device) / options.steps)
            subject.pipeline.append(clock(functools.partial(next, subject.batches), device))
        if time.monotonic() - said > 10:
            console.say(f"round {turn + 1} of {options.rounds}")
            said = time.monotonic()


def measure_memory(subject: Subject, device: torch.device) -> int:
    """Bytes that a step needs beyond what is held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        subject.step()
        return torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux":
        raise ConfigError("the memory of a step on the CPU is read from /proc, which only Linux has")
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory.status("VmRSS")
    subject.step()
    return memory.status("VmHWM") - before


class FlopCounter(TorchDispatchMode):
    """Adds up floating-point operations by operator (torch's own counter minds modules, which input gradients upset)."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(subject: Subject) -> int:
    with FlopCounter() as counter:
        subject.step()
    return counter.total


def measure_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of a large square matrix product in a precision; the best of several."""
    side = PRODUCTS[device.type]
    a = torch.randn(side, side, device=device, dtype=getattr(torch, precision))
    return 2 * side**3 / min(clock(lambda: a @ a, device) for _ in range(6))


def trace(subject: Subject, device: torch.device, path: Path | None) -> dict[str, float]:
    """One step under the profiler: shares of host and device, and how often it waits."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")

    with profile(activities=activities) as recorded:
        seconds = clock(subject.step, device)
    events = recorded.key_averages()
    if device.type == "cuda":
        busy = sum(event.self_device_time_total for event in events) / 1e6
    else:
        busy = sum(event.self_cpu_time_total for event in events if event.key.startswith("aten::")) / 1e6
    waits = sum(event.count for event in events if event.key in WAITS[device.type])
    # The clock itself waits once before and once after the step.
    waits -= 2 if device.type == "cuda" else 0
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(path))
    return {"busy": min(1.0, busy / seconds), "waits": waits}


def describe(subject: Subject, plain: Subject, options: Options, found: dict[str, float], peak: float) -> dict:
    """A subject's row."""
    seconds = statistics.median(subject.seconds)
    low, _, high = statistics.quantiles(subject.seconds, n=4)
    ratios = [a / b for a, b in zip(subject.seconds, plain.seconds, strict=True)]
    ratio, floor = statistics.median(ratios), subject.passes / plain.passes
    return {
        "method": subject.name,
        "step_ms": 1000 * seconds,
        "spread": (high - low) / 2 / seconds,
        "images_per_s": options.batch / seconds,
        "ratio": ratio,
        "passes": subject.passes,
        "floor": floor,
        "gap": ratio / floor,
        "pipeline_share": statistics.median(subject.pipeline) / seconds,
        "host_share": 1 - found["busy"],
        "waits": found["waits"],
        "memory_bytes": found["memory"],
        "flops": found["flops"],
        "flops_per_s": found["flops"] / seconds,
        "peak_share": found["flops"] / seconds / peak,
    }


def run(options: Options, with_naive: bool, folder: Path | None, console: Console) -> dict[str, Any]:
    """Measure; `folder` takes a trace of each subject. Raises ConfigError for options that make no sense."""
    device = choose_device(options.device)
    if options.rounds < 2:
        raise ConfigError(f"rounds must be at least 2, not {options.rounds}")
    if options.threads:
        torch.set_num_threads(options.threads)
    subjects = make_subjects(options, with_naive, device)
    found: dict[str, dict[str, float]] = {}
    for subject in subjects:
        subject.step()  # warm up: allocations, choices of algorithms, compilation
        needed = measure_memory(subject, device)
        path = folder and folder / f"{subject.name.replace(' ', '_')}.json"
        found[subject.name] = {**trace(subject, device, path), "memory": needed}
        # An operator at a time, as no compiled step is.
        found[subject.name]["flops"] = 0 if options.compile else count_flops(subject)
    peak = measure_peak(device, options.precision)
    take_turns(subjects, options, device, console)
    peak = max(peak, measure_peak(device, options.precision))
    rows = [describe(subject, subjects[0], options, found[subject.name], peak) for subject in subjects]
    return {
        "options": asdict(options),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else read_processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_flops_per_s": peak,
        "methods": rows,
    }


def climb(options: Options, with_naive: bool, folder: Path | None, console: Console) -> dict[str, Any]:
    """The results of every rung of LADDER, by its name."""
    results: dict[str, Any] = {}
    for rung, changes in LADDER.items():
        options = replace(options, **changes)
        if rung == "+ CUDA graphs" and choose_device(options.device).type == "cpu":
            continue
        console.say(rung)
        place = folder and folder / rung.strip("+ ").replace(" ", "_")
        results[rung] = run(options, with_naive, place, console)
        torch.compiler.reset()
    return results


def read_processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    options = result["options"]
    title = (
        f"{options['model']}, batch {options['batch']}, M = {options['teachers']}, K = {options['classes']}, "
        f"{options['precision']}, "
        f"{'compiled' if options['compile'] else 'eager'}; {result['device']}, {result['threads']} threads, "
        f"torch {result['torch']}; medians of {options['rounds']} rounds; "
        f"matrix peak {result['peak_flops_per_s'] / 1e9:,.0f} GFLOP/s"
    )
    shown = Table(title=title, title_justify="left")
    columns = "method, step ms, images/s, ratio, floor, gap, pipeline, host, waits, memory MB, GFLOP/s, of peak"
    for k, column in enumerate(columns.split(", ")):
        shown.add_column(column, justify="right" if k else "left")
    for row in result["methods"]:
        shown.add_row(
            row["method"],
            f"{row['step_ms']:.1f} ± {100 * row['spread']:.1f} %",
            f"{row['images_per_s']:,.1f}",
            *(f"{row[name]:.2f}" for name in ("ratio", "floor", "gap")),
            *(f"{100 * row[name]:.1f} %" for name in ("pipeline_share", "host_share")),
            str(row["waits"]),
            f"{row['memory_bytes'] / 1e6:,.0f}",
            f"{row['flops_per_s'] / 1e9:,.0f}",
            f"{100 * row['peak_share']:.0f} %",
        )
    return shown


def ladder_table(results: dict[str, Any]) -> Any:
    from rich.table import Table

    first, *_ = results.values()
    shown = Table(title=f"images/s, and as a multiple of the first column; {first['device']}", title_justify="left")
    shown.add_column("method")
    for rung in results:
        shown.add_column(rung, justify="right")
    for k, row in enumerate(first["methods"]):
        rates = [result["methods"][k]["images_per_s"] for result in results.values()]
        shown.add_row(row["method"], *(f"{rate:,.1f} ({rate / rates[0]:.2f})" for rate in rates))
    return shown


def read_options(arguments: list[str]) -> Options:
    """Options from NAME=VALUE (lists as NAME=a,b). Raises ConfigError for what is no option or no such value."""
    if bad := [argument for argument in arguments if "=" not in argument]:
        raise ConfigError(f"{bad[0]!r} is no OPTION=VALUE; options: {', '.join(asdict(Options()))}")
    given = OmegaConf.from_dotlist(arguments)
    if "methods" in given:
        given.methods = str(given.methods).split(",")
    try:
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), given))
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{first}; options: {', '.join(asdict(Options()))}") from error
    for name in ("precision", "compile"):
        check_choice(name, getattr(options, name))
    return options


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m harness.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help=", ".join(asdict(Options())))
    parser.add_argument("--naive", action="store_true", help="time the naive forms, too")
    parser.add_argument("--ladder", action="store_true", help="one speed-up more at a time: " + ", ".join(LADDER))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="write a trace of one step of each method")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON object to a file")
    given = parser.parse_args(arguments)
    console = Console(sys.stderr if given.json else None)
    try:
        options = read_options(given.options)
        measure = climb if given.ladder else run
        result = measure(options, given.naive, given.profile, console)
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.output:
        write_atomically(given.output, json.dumps(result, indent=1).encode())
    if given.json:
        print(json.dumps(result))
        return 0
    for one in result.values() if given.ladder else [result]:
        console.show(table(one))
    if given.ladder:
        console.show(ladder_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
