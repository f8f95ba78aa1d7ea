"""How a sweep ends: the table of what is done, the list of what is not."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.brought import may_change
from harness.runtime.console import Console, duration
from harness.store.files import Damaged
from harness.store.record import answers, read_record, taught_otherwise
from harness.sweep.plan import Plan
from harness.sweep.summary import sweep_table


@dataclass
class Results:
    """What a sweep's runs came to: the records of those that are done, what is missing of the others, and why."""

    records: dict[Path, dict[str, Any]] = field(default_factory=dict)
    missing: dict[Path, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # what is odd, and in which runs


def collect(plan: Plan, not_run: dict[Path, str], console: Console) -> Results:
    """Read what there is by now. not_run: why students that nobody tried were not run."""
    results = Results()
    notes, missing = results.notes, results.missing
    taught: dict[str, str] = {}  # teachers' weights, by name
    for directory, config in plan.runs.items():
        try:
            record = read_record(directory)
        except Damaged as error:
            missing[directory] = str(error)
            continue
        if record is not None and record["status"] == "done":
            results.records[directory] = record
            if other := taught_otherwise(record, taught):
                notes[f"it learned from another {other} than the runs above: trained again, or of another bank"].append(
                    directory.name
                )
            taught = {**record["provenance"].get("teacher_weights", {}), **taught}
            if not answers(record, config["evaluate"]):
                log = directory / "run.log"
                missing[directory] = (
                    f"done, but without all of evaluate.shift and ood, which the same command adds; log {log}"
                )
        elif directory in plan.refused:
            missing[directory] = plan.refused[directory]
        elif directory in not_run:
            missing[directory] = not_run[directory]
        elif record is None:
            missing[directory] = "not run"
        else:
            log = record["error"]["log"] or directory / "run.log"
            missing[directory] = f"{record['status']}: {record['error']['message']}; log {log}"
        if directory in plan.finished and may_change(config["data"]["name"]):
            from harness.run.data import changed

            if said := changed(record, config, console):
                notes[said].append(directory.name)
        if record is not None:
            for note in record.get("notes") or ():
                notes[note].append(directory.name)
    return results


def show(results: Results, plan: Plan, folder: Path, started: float, console: Console) -> None:
    """The table of what is done and the list of what is not. started: when the sweep was, in seconds."""
    if results.records:
        console.show(sweep_table([*results.records.values()]))
    for note, names in results.notes.items():
        which = names[0] if len(names) == 1 else f"{len(names)} runs, such as {names[0]}"
        console.say(f"note     {which}: {note}")
    for directory, reason in results.missing.items():
        console.say(f"missing  {directory.name}: {reason}")
    console.say(
        f"{len(results.records)} of {len(plan.runs)} runs done in {folder}/ "
        f"({duration(time.time() - started)}); tests and verdicts: "
        f"python -m analysis {shlex.quote(str(folder))}"
    )
