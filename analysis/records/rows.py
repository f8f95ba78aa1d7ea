"""One record as one flat row: metrics, cost, diagnostics and provenance under plain column names.

This is analysis' door to `record.json`, and `check_row` the door to rows from anywhere. What an older or a failed
record lacks is left out of its row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from analysis.records.errors import AnalysisError
from analysis.records.options import DEEPEST, is_deep
from analysis.records.texts import one_line, plain
from harness.store.face import Loss, Share
from harness.store.files import Damaged, check_shape, to_json
from harness.store.fingerprints import without_contents
from harness.store.record import METRICS, RECORD, lost_files, read_record

PREFIXES = {"student": "", "teacher": "teacher_", "ensemble": "ensemble_"}  # of columns, by whose metrics they are
MOST = 1e300  # NaN, infinities and integers that no float holds are not below it
COST = ("wall_s", "device_s", "images_per_s", "peak_memory_bytes", "parameters", "flops", "inference_passes")

Count = Annotated[int, Meta(ge=0, lt=2**62)]
Numbers = dict[str, float | None]


class Teachers(TypedDict, total=False):
    size: Count | None
    set: Count


class Line(TypedDict):
    t: list[float]


class Barrier(Line, total=False):
    loss: list[float]
    loss_bn: list[float]
    barrier: float | None
    barrier_bn: float | None


class Diagnostics(TypedDict, total=False):
    teachers: dict[str, Numbers] | None
    members: dict[str, Numbers] | None
    fidelity: Numbers | None
    barriers: dict[str, Barrier] | None
    dee: float | None
    dee_cap: float | None


class Git(TypedDict, total=False):
    revision: str | None
    dirty: bool | None
    diff_hash: str | None


class Provenance(TypedDict, total=False):
    git: Git | None
    versions: dict[str, str | None] | None
    method_defaults: dict[str, Any] | None
    teachers: list[str] | None
    teacher_weights: dict[str, str] | None
    arithmetic: list[str] | None
    threads: int | None
    data: str | None
    code: str | None
    device: str | None
    host: str | None
    command: str | None
    started: str | None
    ended: str | None
    harness: str | None


class Tuned(TypedDict, total=False):
    trials: Count
    over: list[str]
    on: str


class Configuration(TypedDict, total=False):
    teachers: Teachers | None
    tuned: Tuned | None


class Shift(TypedDict, total=False):
    source: str
    student: dict[str, Any] | None  # numbers, and by type of shift more of them
    teacher: dict[str, Any] | None
    ensemble: dict[str, Any] | None


class Facts(TypedDict, total=False):
    """What a row takes from a record beyond what `harness.store.record` has checked."""

    config: Configuration
    provenance: Provenance | None
    diagnostics: Diagnostics | None
    shift: Shift | None
    ood: dict[str, dict[str, dict[str, Any] | None]] | None
    notes: list[str] | None


class Row(TypedDict, total=False):
    """The columns that everybody relies on."""

    run: str
    status: Literal["done", "failed", "diverged", "interrupted"]
    method: str
    data: str
    model: str
    teacher_size: float | None
    teacher_set: Count
    seed: Annotated[int, Meta(gt=-(2**62), lt=2**62)] | Annotated[str, Meta(pattern=r"^teacher/\d+/\d+$")]
    error: str | None
    directory: str | None
    data_fingerprint: str | None
    code: str | None
    revision: str | None
    teachers: str | None
    teacher_weights: str | None
    arithmetic: str | None
    device: str | None
    host: str | None
    command: str | None
    started: str | None
    ended: str | None
    method_defaults: dict[str, Any] | None
    notes: list[str] | None
    config: Configuration
    acc: Share | None
    nll: Loss | None
    brier: Annotated[float, Meta(ge=0, le=2)] | None
    ece: Share | None
    nll_ts: Loss | None
    ece_ts: Share | None
    wall_s: Loss | None
    device_s: Loss | None
    images_per_s: Loss | None
    peak_memory_bytes: Loss | None
    parameters: Loss | None
    flops: Loss | None
    inference_passes: Loss | None


NEEDED = ("run", "status", "method", "data", "model", "teacher_set", "seed", "config")


def read_row(directory: Path) -> tuple[dict[str, Any], list[str]] | None:
    """The row of a run directory, and which files a done run has lost; None where it has no record.

    Raises Damaged where the record cannot be believed.
    """
    record = read_record(directory)
    if record is None:
        return None
    name = str(Path(directory) / RECORD)
    check_shape(record, Facts, name)
    return check_row(row_of(record, str(directory)), name), lost_files(directory, record)


def check_row(row: dict[str, Any], name: str) -> dict[str, Any]:
    """A row as it may be believed: of the right types and in range, its texts plain; what is no number is noted, and is
    not there. Raises Damaged; `name` is the origin, for its message.
    """
    numbers = {column: v for column, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    infinite = [column for column, value in numbers.items() if not abs(value) < MOST]
    row = {column: value for column, value in row.items() if column not in infinite}
    check_shape(row, Row, name)
    if lacking := [column for column in NEEDED if row.get(column) is None]:
        raise Damaged(f"{name} has a run without {', '.join(lacking)}")
    if row["status"] == "done" and (lacking := [column for column in METRICS if row.get(column) is None]):
        raise Damaged(f"{name} has a done run without {', '.join(lacking)}")
    if is_deep(row["config"]):
        raise Damaged(f"{name} has a configuration of more than {DEEPEST} levels")
    try:
        to_json(row["config"])
    except ValueError as error:
        raise Damaged(f"{name} has a configuration with a number that is none") from error
    notes = [one_line(note) for note in row.get("notes") or ()] + [f"{column} is no number" for column in infinite]
    texts = {plain(column): plain(v) if isinstance(v, str) else v for column, v in row.items()}
    return texts | {"directory": row.get("directory"), "notes": notes or None}


def read_barriers(directory: str | Path) -> dict[str, dict[str, Any]]:
    """Losses on the straight line between each two of a student's members; empty where none were measured.

    Raises AnalysisError where the record is damaged.
    """
    try:
        record = read_record(Path(directory)) if directory else None
        check_shape(record or {}, Facts, str(directory))
    except Damaged as error:
        raise AnalysisError(str(error)) from error
    barriers = ((record or {}).get("diagnostics") or {}).get("barriers") or {}
    lines = [pair[name] for pair in barriers.values() for name in ("t", "loss", "loss_bn") if pair.get(name)]
    if len({len(line) for line in lines}) > 1:
        raise AnalysisError(f"the loss barriers of {directory} are lines of different lengths")
    return barriers


def row_of(record: dict[str, Any], directory: str = "") -> dict[str, Any]:
    """A record as a row."""
    config = record["config"]
    method, teachers = config.get("method") or {}, config.get("teachers") or {}
    provenance = record.get("provenance") or {}
    git = provenance.get("git") or {}
    error = record.get("error")
    row = {
        "run": str(record.get("hash") or Path(directory).name),
        "status": record["status"],
        "arm": method.get("name"),
        "method": method.get("name"),
        "data": (config.get("data") or {}).get("name"),
        "model": config.get("model"),
        "teacher_size": teachers.get("size"),
        "teacher_set": teachers.get("set", 0),
        "seed": config.get("seed"),
        "error": one_line(f"{error.get('type')}: {error.get('message')}") if error else None,
        "directory": directory,
        "revision": _revision(git),
        # Where the record has a hash of the code that decides results, it says more than a revision: a commit
        # to the documentation is no other code.
        "code": provenance.get("code") or _revision(git),
        "data_fingerprint": without_contents(data) if isinstance(data := provenance.get("data"), str) else data,
        "teachers": ",".join(provenance.get("teachers") or []) or None,
        "teacher_weights": ",".join(f"{w:.12}" for w in (provenance.get("teacher_weights") or {}).values()) or None,
        "arithmetic": _arithmetic(provenance),
        "method_defaults": provenance.get("method_defaults"),
        **{name: provenance.get(name) for name in ("device", "host", "command", "started", "ended", "harness")},
        "torch": (provenance.get("versions") or {}).get("torch"),
        "notes": record.get("notes"),
        "config": config,
    }
    found = record.get("metrics") or {}
    numbers: dict[str, Any] = {}
    for who, prefix in PREFIXES.items():
        numbers |= _numbers((found.get(who) or {}).get("test"), prefix)
    numbers |= _numbers((found.get("student") or {}).get("validation"), "validation_")
    cost = record.get("cost") or {}
    numbers |= {name: cost[name] for name in COST if name in cost}
    numbers |= _diagnostics(record.get("diagnostics") or {}) | _shift(record)
    return row | {name: value for name, value in numbers.items() if name not in row}  # no metric is called `status`


def _diagnostics(found: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for who in ("teachers", "members"):
        for split, values in (found.get(who) or {}).items():
            row |= {f"{who}_{split}_{name}": value for name, value in values.items()}
    row |= {f"fidelity_{name}": value for name, value in (found.get("fidelity") or {}).items()}
    barriers = found.get("barriers") or {}
    for name in ("barrier", "barrier_bn"):
        values = [pair[name] for pair in barriers.values() if pair.get(name) is not None]
        if values:
            row[name] = sum(values) / len(values)  # the mean over pairs of members
            row[f"{name}_max"] = max(values)
    if found.get("dee") is not None:
        row |= {"dee": found["dee"], "dee_cap": found.get("dee_cap")}
    return row


def _shift(record: dict[str, Any]) -> dict[str, Any]:
    shift = record.get("shift") or {}
    row: dict[str, Any] = {"shift_source": shift["source"]} if "source" in shift else {}
    for who, prefix in PREFIXES.items():
        row |= _numbers(shift.get(who), f"{prefix}shift_")
        for name, found in (record.get("ood") or {}).items():
            row |= _numbers(found.get(who), f"{prefix}ood_{name}_")
    return row


def _numbers(found: dict[str, Any] | None, prefix: str) -> dict[str, float]:
    """The numbers among measured values, under a prefix."""
    return {
        prefix + name: value
        for name, value in (found or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _arithmetic(provenance: dict[str, Any]) -> str | None:
    """How a run was computed, by which its last digits differ from another's; older records know of a part."""
    if provenance.get("arithmetic"):
        return " then ".join(provenance["arithmetic"])
    device, threads = provenance.get("device"), provenance.get("threads")
    return f"cpu, {threads} threads" if device == "cpu" and threads else device


def _revision(git: dict[str, Any]) -> str | None:
    if not git.get("revision"):
        return None
    dirty = f"+{(git.get('diff_hash') or 'changes')[:8]}" if git.get("dirty") else ""
    return git["revision"][:10] + dirty
