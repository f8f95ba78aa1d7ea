"""Several runs beside each other in one SLURM job, on its GPUs or cores: small networks leave most of a device idle.

Each is a process like any other run's, with a claim, checkpoint and record of its own; this one only looks after
them: it starts as many as fit, in turns on the job's GPUs, passes on the warning before the end, and notes how those
died that could not.
"""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from harness.jobs import death, memory
from harness.jobs.process import start_run
from harness.jobs.slots import Slot, gpus_for
from harness.runtime import host
from harness.runtime.interruption import StopRequest, held_back
from harness.store import provenance
from harness.store.record import answers, settled
from harness.store.submission import read_config

INTERRUPTED = 130
STOPPED = (INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR2)  # SLURM's own signal may hit a process that is leaving


def run_pack(files: list[Path], stop: StopRequest) -> list[Path]:
    """Execute the runs of these config.json; returns those that were interrupted, or not begun, where `stop` said so.

    A run with a record has ended before, in an earlier attempt of the job, unless it is done and asked for more.
    """
    configs = {file: read_config(file) for file in files}
    waiting = [file for file in files if not has_ended(file.parent, configs[file])]
    names = gpus_for(configs[files[0]]["device"])
    slots, note = memory.find_slots([configs[file] for file in waiting], len(files), names)
    if note:
        print(note)
    threads = max(1, host.cores() // len(slots))
    running: dict[Path, tuple[subprocess.Popen, Slot]] = {}
    interrupted = []
    told = False
    while running or (waiting and not stop()):
        while waiting and slots and not stop():
            slot = slots.pop(0)
            with held_back():  # a warning that comes before a run can listen waits for it
                running[waiting[0]] = start_run(waiting[0], Path.cwd(), threads, slot), slot
            print(f"{waiting.pop(0).parent.name}: started" + (f" on GPU {slot}" if slot else ""))
        if stop() and not told:
            told = True
            for process, _ in running.values():
                process.send_signal(stop.signal)
        for file, (process, slot) in list(running.items()):
            if (code := process.poll()) is None:
                continue
            del running[file]
            slots.append(slot)
            print(f"{file.parent.name}: ended with exit code {code}")
            if settled(file.parent) is None:
                if stop() and code in STOPPED:
                    interrupted.append(file)
                elif code:
                    log, slurm = str(file.with_name("job.log")), provenance.slurm()
                    death.bury(file.parent, configs[file], death.of_process(code, log, slurm))
        time.sleep(0.1)
    return interrupted + waiting


def has_ended(directory: Path, config: dict[str, Any]) -> bool:
    record = settled(directory)
    return record is not None and (record["status"] != "done" or answers(record, config["evaluate"]))
