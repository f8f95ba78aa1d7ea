"""Steps of every method measured: once, or on every rung of a ladder of speed-ups."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from harness.bench import naive
from harness.bench.machine import read_processor
from harness.bench.measurement import (
    Compilations,
    count_flops,
    count_graphs,
    graphs_memory,
    measure_memory,
    measure_peak,
    synchronise,
    take_turns,
    warm_up,
    watch_compilations,
)
from harness.bench.rungs import GPU_ONLY, LADDER
from harness.bench.subjects import Options, Subject, make_subjects
from harness.bench.trace import trace
from harness.config import ConfigError
from harness.runtime.console import Console, duration
from harness.training import compilation
from harness.training.device import choose_device


def describe(subject: Subject, plain: Subject, options: Options, found: dict[str, float], peak: float) -> dict:
    """A subject's row."""
    seconds = statistics.median(subject.seconds)
    low, _, high = statistics.quantiles(subject.seconds, n=4)
    ratios = [a / b for a, b in zip(subject.seconds, plain.seconds, strict=True)]
    ratio, floor = statistics.median(ratios), subject.passes / plain.passes
    # Of a GPU the profiler's burden is on the host alone: its work is compared with steps that were timed without.
    busy = found["busy"] if "busy" in found else min(1.0, found["busy_s"] / seconds)
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
        "host_share": 1 - busy,
        "waits": found["waits"],
        "memory_bytes": found["memory"],
        "graphs_bytes": found["graphs"],
        "captured": subject.trainer.capture and subject.trainer.capture.describe(),
        "warm_up_s": found["warm_up_s"],
        "flops": found["flops"],
        "flops_per_s": found["flops"] / seconds,
        "peak_share": found["flops"] / seconds / peak,
    }


def measure(options: Options, with_naive: bool, folder: Path | None, console: Console) -> dict[str, Any]:
    """All methods at work; `folder` takes a trace of a step of each. Raises ConfigError for options that make no sense."""
    device = choose_device(options.device)
    if options.rounds < 2:
        raise ConfigError(f"rounds must be at least 2, not {options.rounds}")
    if options.threads:
        torch.set_num_threads(options.threads)
    subjects = make_subjects(options, with_naive, device)
    with watch_compilations() as compilations:
        found = {subject.name: prepare(subject, device, compilations, console) for subject in subjects}
        peak = measure_peak(device, options.precision)
        before, compiled = count_graphs(compilations, subjects), compilation.describe(options.compile)
        take_turns(subjects, options, device, console)
        late = count_graphs(compilations, subjects) - before
    peak = max(peak, measure_peak(device, options.precision))
    for subject in subjects:  # last, since a profiler's traces may outlast it
        path = folder and folder / f"{subject.name.replace(' ', '_')}.json"
        found[subject.name] |= trace(subject, device, path)
    rows = [describe(subject, subjects[0], options, found[subject.name], peak) for subject in subjects]
    return {
        "options": asdict(options),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else read_processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peak_flops_per_s": peak,
        "compilation": compiled,
        "compiled_while_timed": late,  # graphs, captured ones too: where it is not 0, that is in the times
        "methods": rows,
    }


def prepare(subject: Subject, device: torch.device, compilations: Compilations, console: Console) -> dict[str, float]:
    """Warm a subject up, and find out what needs no clock."""
    graphs, start = graphs_memory(device), time.perf_counter()
    warm_up(subject, compilations)
    synchronise(device)
    seconds = time.perf_counter() - start
    if seconds > 5:
        console.say(f"{subject.name}: warm after {duration(seconds)}")
    return {
        "warm_up_s": seconds,
        "graphs": graphs_memory(device) - graphs,
        "memory": measure_memory(subject, device),
        "flops": count_flops(subject),
    }


def climb(
    options: Options,
    rungs: Sequence[str],
    with_naive: bool,
    folder: Path | None,
    console: Console,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The results of rungs of LADDER, by name; naive forms on the first of them and, in the end, on the fastest.

    `save` is called with what there is after each. Raises ConfigError.
    """
    results: dict[str, Any] = {}
    options_of: dict[str, Options] = {}
    on_cpu = choose_device(options.device).type == "cpu"
    for rung, changes in LADDER.items():
        options = options_of[rung] = replace(options, **changes)
        if rung in rungs and not (rung in GPU_ONLY and on_cpu):
            console.say(rung)
            place = folder and folder / rung.strip("+ ").replace(" ", "_").replace(",", "")
            results[rung] = measure(options, False, place, console)
            save(results)
    if with_naive:
        slowest = options.methods[-1]
        fastest = max(results, key=lambda rung: find(results[rung], slowest)["images_per_s"])
        # After all others: they take the most memory, and may find too little.
        for rung in dict.fromkeys((next(iter(results)), fastest)):
            console.say(f"{rung}, with naive forms")
            again = replace(options_of[rung], methods=[name for name in options.methods if naive.build(name)])
            rows = measure(again, True, None, console)["methods"]
            results[rung]["methods"] += [row for row in rows if row["method"].endswith(naive.MARK)]
            save(results)
    return results


def find(result: dict[str, Any], method: str) -> dict[str, Any]:
    """A method's row of a result."""
    return next(row for row in result["methods"] if row["method"] == method)
