"""Trackers' pages read back, each by its tracker's own means, as one shape."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Curves = dict[str, list[tuple[int, float]]]  # steps and values, by name


@dataclass
class Shown:
    """A run as a tracker shows it."""

    name: str
    curves: Curves = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    said: str = ""  # tags and the like, as one text
    status: str = ""


def read_tensorboard(out: Path) -> list[Shown]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    found = []
    for folder in sorted(out.glob("*")):
        pages = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        shown = Shown(folder.name)
        for tag in pages.Tags()["scalars"]:
            shown.curves[tag] = [(event.step, event.value) for event in pages.Scalars(tag)]
        if "provenance/text_summary" in pages.Tags()["tensors"]:
            (text,) = pages.Tensors("provenance/text_summary")
            shown.said = text.tensor_proto.string_val[0].decode()
            told = pages.summary_metadata
            start = told[metadata.SESSION_START_INFO_TAG].plugin_data.content
            for name, value in metadata.parse_session_start_info_plugin_data(start).hparams.items():
                shown.options[name] = getattr(value, value.WhichOneof("kind"))
            end = told[metadata.SESSION_END_INFO_TAG].plugin_data.content
            ended = metadata.parse_session_end_info_plugin_data(end).status
            shown.status = {1: "good", 2: "bad"}[ended]
        found.append(shown)
    return found


def read_mlflow(out: Path) -> list[Shown]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=str(out))
    found = []
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            data, status = run.data, {"FINISHED": "good", "FAILED": "bad"}.get(run.info.status, "")
            shown = Shown(run.info.run_name, {}, dict(data.params), json.dumps(data.tags), status)
            for name in data.metrics:
                history = client.get_metric_history(run.info.run_id, name)
                shown.curves[name] = sorted((metric.step, metric.value) for metric in history)
            found.append(shown)
    return found


def read_wandb(out: Path) -> list[Shown]:
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted(out.glob("offline-run-*/*.wandb")):
        shown, last, final = Shown(""), 0, {}
        for content in log_records(file.read_bytes()):
            record = Record.FromString(content)
            if record.HasField("run") and record.run.display_name:
                shown.name = record.run.display_name
                shown.said += " ".join(record.run.tags)
                shown.options |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                last = record.history.step.num
                for item in record.history.item:
                    name = item.key or "/".join(item.nested_key)
                    if not name.startswith("_"):
                        shown.curves.setdefault(name, []).append((last, json.loads(item.value_json)))
            if record.HasField("summary"):
                for item in record.summary.update:
                    name = item.key or "/".join(item.nested_key)
                    if not name.startswith("_"):
                        final[name] = json.loads(item.value_json)
            if record.HasField("exit"):
                shown.status = "bad" if record.exit.exit_code else "good"
        shown.curves = {name: [(last, value)] for name, value in final.items()} | shown.curves
        shown.said += json.dumps(shown.options.pop("provenance", None))
        found.append(shown)
    return found


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format, in blocks of 32 KiB, after seven bytes of W&B's own."""
    assert content[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no room for a header: padding
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or last of several
            yield parts
            parts = b""


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb}
