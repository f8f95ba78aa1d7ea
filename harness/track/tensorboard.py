"""Pages for TensorBoard: OUT/RUN/events.out.tfevents.SECONDS.harness, one file a run.

A page always makes the same bytes. So the file itself says what was sent: where it is the beginning of what it should
be (killed in the middle of a word, too) the rest is appended, and where it is not (the run was forced again, resumed
from an earlier epoch, evaluated again) the page is written anew.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.store.files import append, read_bytes, write_atomically
from harness.track.page import Ending, Page
from harness.track.tracker import ANEW, MORE, NEW, Missing

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.record_writer import RecordWriter
except ImportError as error:
    raise Missing("tensorboard") from error

EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\.harness")


class TensorBoard:
    """A folder that TensorBoard is given with --logdir."""

    live = True

    def __init__(self, out: str):
        self.folder = Path(out)
        self.where = f"tensorboard --logdir {shlex.quote(out)}"
        self.notes: list[str] = []

    def send(self, page: Page) -> str | None:
        folder = self.folder / page.name
        found = {path: int(name[1]) for path in folder.glob("*") if (name := EVENTS.fullmatch(path.name))}
        if len(found) == 1:
            ((path, began),) = found.items()
            held, wanted = read_bytes(path) or b"", encode(page, began)
            if wanted.startswith(held):
                if wanted == held:
                    return None
                append(path, wanted[len(held) :])
                return MORE
        for path in found:  # before the new one is there: nobody is ever to read both
            path.unlink()
        # By a later name than before: a TensorBoard that is open reads it as what follows a restart.
        began = max(int(page.began), *(1 + number for number in found.values()), 0)
        write_atomically(folder / f"events.out.tfevents.{began}.harness", encode(page, began))
        return ANEW if found else NEW


def encode(page: Page, began: int) -> bytes:
    """An event file's bytes. began: when, in seconds since 1970, its clock starts."""
    file = io.BytesIO()
    records = RecordWriter(file)

    def write(step: int, seconds: float, **content: Any) -> None:
        event = Event(step=step, wall_time=began + seconds, **content)
        records.write(event.SerializeToString(deterministic=True))

    write(0, 0, file_version="brain.Event:2")
    write(0, 0, session_log=SessionLog(status=SessionLog.START))
    for epoch in page.epochs:
        write(epoch.number, epoch.elapsed_s, summary=Summary(value=scalars(epoch.values)))
    if page.ending:
        last = page.epochs[-1].number if page.epochs else 0
        ending = [*hparams(page.ending, began, began + page.seconds), text("provenance", table(page.ending.tags))]
        write(last, page.seconds, summary=Summary(value=[*ending, *scalars(page.ending.final)]))
    return file.getvalue()


def scalars(values: Mapping[str, float]) -> list[Summary.Value]:
    return [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]


def text(name: str, markdown: str) -> Summary.Value:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    return Summary.Value(tag=f"{name}/text_summary", metadata=create_summary_metadata(name, ""), tensor=tensor)


def table(tags: Mapping[str, str]) -> str:
    """Tags as a table in Markdown, whatever is in them."""
    rows = [(name, " ".join(value.replace("|", "\\|").split())) for name, value in tags.items()]
    return "\n".join(f"| {name} | {value} |" for name, value in [("", ""), ("---", "---"), *rows])


def hparams(ending: Ending, began: float, ended: float) -> Iterator[Summary.Value]:
    """What TensorBoard's table of hyperparameters reads: the options, and whether it went well."""
    start = SessionStartInfo(start_time_secs=began)
    for name, value in ending.options.items():
        kind = "bool_value" if isinstance(value, bool) else "number_value" if isinstance(value, int | float) else None
        setattr(start.hparams[name], kind or "string_value", value)
    status = api_pb2.STATUS_SUCCESS if ending.status == "done" else api_pb2.STATUS_FAILURE
    end = SessionEndInfo(status=status, end_time_secs=ended)
    for tag, content in (
        (metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)),
        (metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)),
    ):
        about = metadata.create_summary_metadata(content)
        about.plugin_data.content = content.SerializeToString(deterministic=True)
        yield Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
