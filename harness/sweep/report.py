"""How a sweep ends: the table of what is done, the list of what is not."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from pathlib import Path

from harness.config.brought import may_change
from harness.runtime.console import Console, duration
from harness.store.files import Damaged
from harness.store.record import answers, read_record, taught_otherwise
from harness.sweep.plan import Plan
from harness.sweep.summary import sweep_table


def report(plan: Plan, folder: Path, not_run: dict[Path, str], started: float, console: Console) -> int:
    """Show the table of what is done and the list of what is not; 0 where nothing is missing.

    not_run: why students that nobody tried were not run; started: when the sweep was, in seconds.
    """
    records, failures = [], []
    notes: dict[str, list[str]] = defaultdict(list)  # what is odd, and in which runs
    taught: dict[str, str] = {}  # teachers' weights, by name
    for directory, config in plan.runs.items():
        try:
            record = read_record(directory)
        except Damaged as error:
            failures.append(f"{directory.name}: {error}")
            continue
        if record is not None and record["status"] == "done":
            records.append(record)
            if other := taught_otherwise(record, taught):
                notes[f"it learned from another {other} than the runs above: trained again, or of another bank"].append(
                    directory.name
                )
            taught = {**record["provenance"].get("teacher_weights", {}), **taught}
            if not answers(record, config["evaluate"]):
                log = directory / "run.log"
                failures.append(
                    f"{directory.name}: done, but without all of evaluate.shift and ood, which the same command adds; "
                    f"log {log}"
                )
        elif directory in plan.refused:
            failures.append(f"{directory.name}: {plan.refused[directory]}")
        elif directory in not_run:
            failures.append(f"{directory.name}: {not_run[directory]}")
        elif record is None:
            failures.append(f"{directory.name}: not run")
        else:
            log = record["error"]["log"] or directory / "run.log"
            failures.append(f"{directory.name}: {record['status']}: {record['error']['message']}; log {log}")
        if directory in plan.finished and may_change(config["data"]["name"]):
            from harness.run.data import changed

            if said := changed(record, config, console):
                notes[said].append(directory.name)
        if record is not None:
            for note in record.get("notes") or ():
                notes[note].append(directory.name)
    if records:
        console.show(sweep_table(records))
    for note, names in notes.items():
        which = names[0] if len(names) == 1 else f"{len(names)} runs, such as {names[0]}"
        console.say(f"note     {which}: {note}")
    for reason in failures:
        console.say(f"missing  {reason}")
    console.say(
        f"{len(records)} of {len(plan.runs)} runs done in {folder}/ "
        f"({duration(time.time() - started)}); tests and verdicts: "
        f"python -m analysis {shlex.quote(str(folder))}"
    )
    return 1 if failures else 0
