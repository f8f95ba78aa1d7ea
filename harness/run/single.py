"""One run as a person sees it: its metrics, the teacher's and the ensemble's beside them, and where the files are."""

from __future__ import annotations

from typing import Any

from harness.config import ConfigError
from harness.run.run import execute
from harness.runtime.console import STOPPED, Console, complain, duration, format_metric
from harness.runtime.interruption import Interrupted, StopRequest
from harness.store.claim import Claimed
from harness.store.identity import run_directory
from harness.store.record import METRICS
from harness.training.trainer import Diverged


def run_single(config: dict[str, Any]) -> int:
    """Run, show, and return the exit status."""
    console = Console()
    directory = run_directory(config)
    try:
        make(config, console)
    except Interrupted as error:
        console.say(f"{error}; the same command goes on from there ({directory})")
        return STOPPED
    except Claimed as error:
        complain(f"{directory} is in use: {error}")
        return 1
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  recorded with its traceback by the run itself; here it is said
        complain(f"{type(error).__name__}: {error}; see {directory / 'run.log'}")
        return 1
    return 0


def make(config: dict[str, Any], console: Console) -> dict[str, Any]:
    """The record of a run that is done, shown. Raises what `execute` does, and Diverged of one that had done so before."""
    try:
        with StopRequest() as stop:
            record = execute(config, console, stop)
    finally:
        console.close()
    if record["status"] == "diverged":
        raise Diverged(record["error"]["message"])
    console.show(metrics_table(record))
    for note in record.get("notes") or ():
        console.say(f"note: {note}")
    cost = record["cost"]
    console.say(
        f"epoch {record['selection']['epoch']} chosen on validation data; {duration(cost['wall_s'])}, "
        f"{cost['images_per_s']:.0f} images/s; {cost['parameters']:,} parameters deployed"
    )
    console.say(f"record and files: {run_directory(config)}")
    return record


def metrics_table(record: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title="test data", title_justify="left")
    table.add_column("")
    for metric in METRICS:
        table.add_column(metric, justify="right")
    config = record["config"]
    labels = {
        "student": config["method"]["name"],
        "teacher": "one teacher",
        "ensemble": f"DE-{config['teachers']['size']} (teachers)",
    }
    for who, found in record["metrics"].items():
        table.add_row(labels[who], *(format_metric(metric, found["test"][metric]) for metric in METRICS))
    return table
