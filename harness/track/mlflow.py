"""Pages for MLflow: a server, a database or a folder, where every page is a run of one experiment.

MLflow never takes a number back. So a run says in a tag what it was sent, and, while more is on its way, that it is
unfinished; where a page is not the continuation of that, the run is deleted there, and another one takes its place.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from harness.store.files import Count, Damaged, parse_json
from harness.track.page import Page, as_text
from harness.track.tracker import ANEW, MORE, NEW, Missing, Refused

try:
    from mlflow.entities import Metric, Param, Run, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise Missing("mlflow-skinny") from error

RUN, SENT = "harness.run", "harness.sent"  # tags: the run's hash, and what of it is there
UNFINISHED = "unfinished"
BATCH, FEW = 1000, 100  # MLflow's limits to one request: metrics, and params or tags
LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000  # characters


class Sent(TypedDict):
    """How many epochs a run was sent, their digest, and the page's where it had ended."""

    epochs: Count
    told: str
    ended: str | None


class MLflow:
    """An experiment, and the runs of ours that it holds."""

    live = True

    def __init__(self, out: str, project: str):
        if is_folder(out):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones want to be told
            self.where = f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {shlex.quote(out)}"
        else:
            self.where = out
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # else it takes minutes to give up
        self.notes: list[str] = []
        self.held: defaultdict[str, list[Run]] = defaultdict(list)
        try:
            self.client = MlflowClient(tracking_uri=str(Path(out).absolute()) if is_folder(out) else out)
            self.experiment = self.find(project)
            for run in self.all_runs():
                if RUN in run.data.tags:
                    self.held[run.data.tags[RUN]].append(run)
        except ImportError as error:  # its small edition knows no databases
            raise Missing("mlflow") from error
        except MlflowException as error:
            raise Refused(f"{out}: {error}") from error

    def find(self, project: str) -> str:
        """The id of the experiment, made where there is none."""
        found = self.client.get_experiment_by_name(project)
        if found is None:
            return self.client.create_experiment(project)
        if found.lifecycle_stage != "active":
            raise Refused(f"MLflow's experiment {project} was deleted there: restore it, or take another --project")
        return found.experiment_id

    def all_runs(self) -> Iterator[Run]:
        token = None
        while True:
            found = self.client.search_runs([self.experiment], page_token=token)
            yield from found
            if not (token := found.token):
                return

    def send(self, page: Page) -> str | None:
        held = self.held[page.hash]
        sent = read_sent(held[0]) if len(held) == 1 else None
        now: Sent = {
            "epochs": len(page.epochs),
            "told": page.digest(len(page.epochs)),
            "ended": page.digest() if page.ending else None,
        }
        if sent == now:
            return None
        how = ANEW if held else NEW
        try:
            if sent and sent["ended"] is None and sent["told"] == page.digest(sent["epochs"]):
                how = MORE
            else:
                sent = None
                while held:
                    self.client.delete_run(held[-1].info.run_id)
                    held.pop()
                began = int(1000 * page.began)
                held.append(self.client.create_run(self.experiment, began, {RUN: page.hash}, page.name))
            self.write(held[0], page, sent["epochs"] if sent else 0)
            held[0] = self.mark(held[0], json.dumps(now))
        except MlflowException as error:
            raise Refused(str(error)) from error
        return how

    def mark(self, run: Run, sent: str) -> Run:
        """Say what a run was sent; returns it as it is then."""
        self.client.set_tag(run.info.run_id, SENT, sent)
        run.data.tags[SENT] = sent
        return run

    def write(self, run: Run, page: Page, since: int) -> None:
        """Send what comes after so many epochs."""
        self.mark(run, UNFINISHED)
        began, identity = run.info.start_time, run.info.run_id
        new = [
            Metric(valid(name), value, began + int(1000 * epoch.elapsed_s), epoch.number)
            for epoch in page.epochs[since:]
            for name, value in epoch.values.items()
        ]
        params: list[Param] = []
        tags: list[RunTag] = []
        end = began + int(1000 * page.seconds)
        if page.ending:
            last = page.epochs[-1].number if page.epochs else 0
            new += [Metric(valid(name), value, end, last) for name, value in page.ending.final.items()]
            params = [Param(*pair) for pair in texts(page.ending.options, LONGEST_PARAM)]
            tags = [RunTag(*pair) for pair in texts(page.ending.tags, LONGEST_TAG)]
        for some in slices(new, BATCH):
            self.client.log_batch(identity, metrics=some)
        for some in slices(params, FEW):
            self.client.log_batch(identity, params=some)
        for some in slices(tags, FEW):
            self.client.log_batch(identity, tags=some)
        if page.ending:
            self.client.set_terminated(identity, "FINISHED" if page.ending.status == "done" else "FAILED", end)


def is_folder(out: str) -> bool:
    """Whether MLflow keeps what is there in files: it is no address."""
    return "://" not in out and not out.startswith("databricks")


def read_sent(run: Run) -> Sent | None:
    """What a run says that it was sent; None where it is unfinished, or somebody has changed it."""
    try:
        return parse_json(run.data.tags.get(SENT, "").encode(), Sent, SENT)
    except Damaged:
        return None


def valid(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w.\-/: ]", "_", name, flags=re.ASCII)[:LONGEST_NAME]


def texts(values: Mapping[str, Any], longest: int) -> list[tuple[str, str]]:
    return list({valid(name): as_text(value)[:longest] for name, value in values.items()}.items())


def slices(values: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
