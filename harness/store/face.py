"""The face of a record: what every reader relies on, of any version. The rest is the business of who wrote it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from harness.store.files import Count, Seconds

Share = Annotated[float, Meta(ge=0, le=1)]
Loss = Annotated[float, Meta(ge=0, lt=1e300)]  # of which the mean is a number, too
Amount = Annotated[float, Meta(ge=0, le=1e30)]


class Metrics(TypedDict, total=False):
    """Of one network on one split; further ones are welcome."""

    acc: Share
    nll: Loss
    brier: Annotated[float, Meta(ge=0, le=2)]
    ece: Share
    nll_ts: Loss
    ece_ts: Share
    temperature: Annotated[float, Meta(gt=0)]


class Failure(TypedDict, total=False):
    """What went wrong."""

    type: str
    message: str
    traceback: str | None
    log: str | None
    slurm_state: str | None


class Named(TypedDict):
    """The part of a configuration that has a name."""

    name: str


class Configuration(TypedDict):
    """What every reader needs of a run's configuration."""

    method: Named
    data: Named
    model: str
    seed: int | str


class Imported(TypedDict):
    """Of a teacher that was trained elsewhere."""

    file: str


class Source(TypedDict, total=False):
    """Where a result of any status came from."""

    code: str | None
    data: str | None
    teachers: list[str] | None
    teacher_weights: dict[str, str] | None
    imported: Imported


class Record(TypedDict):
    """A record of any status; see record.SCHEMA for all of it."""

    version: int
    hash: str
    status: Literal["done", "failed", "diverged", "interrupted"]
    error: Failure | None
    config: Configuration
    metrics: dict[str, dict[str, Metrics]] | None
    cost: dict[str, float | None]
    provenance: Source


class Size(TypedDict):
    """Of a set of teachers."""

    size: int


class Length(TypedDict):
    """Of a training."""

    epochs: int


class DoneConfiguration(Configuration):
    """What tables and plans need besides."""

    teachers: Size
    train: Length


class DoneMetrics(TypedDict, total=False):
    """Of whom a record tells."""

    student: dict[str, Metrics]
    teacher: dict[str, Metrics]
    ensemble: dict[str, Metrics]


class Passes(TypedDict, total=False):
    """What earlier versions did not say of a cost."""

    inference_passes: Annotated[float, Meta(ge=1, le=1e6)]


class Cost(Passes):
    """What a run took."""

    wall_s: Seconds
    device_s: Seconds
    images_per_s: Amount
    parameters: Amount


class Selection(TypedDict):
    """The chosen checkpoint."""

    epoch: Count
    acc: float


class Learned(TypedDict, total=False):
    """What earlier versions did not say of where a result came from."""

    teacher_weights: dict[str, str]
    imported: Imported


class Origin(Learned):
    """Where a result came from."""

    teachers: list[str]
    data: str | None
    device: str


class Done(Record):
    """A record with numbers: what the tables of a sweep, its plan and its report take for granted."""

    config: DoneConfiguration
    metrics: DoneMetrics
    cost: Cost
    selection: Selection
    shift: dict[str, Any] | None
    ood: dict[str, Any] | None
    provenance: Origin


class Noted(TypedDict, total=False):
    """What a record may have, of later versions."""

    notes: list[str]
    files: dict[str, str]
