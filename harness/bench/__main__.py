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

`--naive` adds each method as one would first write it (harness/bench/naive.py), `--ladder` repeats all of it with one speed-up
more at a time (LADDER), `--json` prints one JSON object, `--profile FOLDER` writes a trace of one step of each method,
`--output FILE` writes the JSON there, too. Everything about a GPU, in one command:

    python -m harness.bench model=wrn28_4 batch=128 device=cuda steps=10 --naive --ladder --profile traces --output gpu.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.bench.measurement import count_flops, measure_memory, measure_peak, take_turns, trace
from harness.bench.subjects import Options, Subject, make_subjects
from harness.bench.table import ladder_table, table
from harness.config import ConfigError
from harness.run.checks import check_choice
from harness.runtime.console import Console
from harness.store.files import to_json, write_atomically
from harness.training.device import choose_device

# What `--ladder` adds, step by step. On a GPU float32 is TF32 inside convolutions, as torch has it.
LADDER: dict[str, dict[str, Any]] = {
    "eager float32": {"precision": "float32", "channels_last": False, "compile": None},
    "+ channels_last": {"channels_last": True},
    "+ bfloat16": {"precision": "bfloat16"},
    "+ compiled": {"compile": "default"},
    "+ CUDA graphs": {"compile": "reduce-overhead"},
}


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
        write_atomically(given.output, to_json(result, 1))
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
