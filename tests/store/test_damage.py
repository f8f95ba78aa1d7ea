"""Every reader of the store against every damage: the right value, what it documents, or Damaged by the file's name.

With -s a table of how many damages each reader was given. HARNESS_FUZZ=N: N bits and N places to cut, of every file.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.run.checkpoint import Checkpoints
from harness.run.views import ViewCache
from harness.runtime.console import Console
from harness.store import claim
from harness.store.attempts import append_event, read_events
from harness.store.checkpoint import CHECKPOINT, FORMAT, read_checkpoint, write_checkpoint
from harness.store.claim import NOBODY, Claim, certainly_dead, is_claimed, living, read_claim
from harness.store.files import Damaged, Unreadable
from harness.store.findings import Findings
from harness.store.history import append_epoch, read_history, read_progress, write_progress
from harness.store.identity import run_directory
from harness.store.predictions import PREDICTIONS, read_predictions, write_predictions
from harness.store.record import RECORD, check_files, digest_of, read_record, read_status
from harness.store.submission import CONFIG, read_config, read_submission, write_config, write_submission
from harness.store.weights import WEIGHTS, read_weights, write_weights
from harness.training.data import Split, load
from harness.training.data.augmentation import Augmentation
from harness.training.state import Training
from tests import damage
from tests.damage import Damage
from tests.planted import plant
from tests.running import configure

TABLE: dict[str, Counter[str]] = {}
OWNER = {"token": str, "host": str, "pid": int, "pid_started": str, "job": str}


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    for name, found in TABLE.items():
        ended = ", ".join(f"{count} {how}" for how, count in found.items())
        print(f"\n{name:<28} injected {found.total():>6}: {ended}", end="")
    print(f"\n{'all':<28} injected {sum(found.total() for found in TABLE.values()):>6}")


@dataclass
class Reader:
    """make: writes what is right; read: its value; fits: whether another value is one that its users can use, None
    where no other is right; seal: mends the digest of a changed JSON value; none: whether None stands for Damaged.
    """

    file: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    fits: Callable[[Any], bool] | None = None
    seal: Callable[[Any], Any] = lambda value: value
    none: bool = False


def plain(value: Any) -> Any:
    """A value that can be compared: arrays as their bytes."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def judge(reader: Reader, directory: Path, right: Any, one: Damage) -> tuple[str, str | None]:
    """How a reader ends on a damage, and what is wrong with that."""
    path = directory / reader.file
    one.inflict(path)
    try:
        with damage.in_time():
            found = reader.read(directory)
    except Damaged as error:
        said = str(error)
        named = str(path) in said and "\n" not in said and len(said) < 1000
        return "named", None if named else f"says {said[:300]!r}"
    except damage.Hangs:
        return "hang", "hangs"
    except Exception as error:  # noqa: BLE001  this is what the test is about
        return "traceback", f"{type(error).__name__}: {error} at {traceback.extract_tb(error.__traceback__)[-1]}"
    finally:
        damage.remove(path)
        for aside in directory.glob("*damaged-*"):
            damage.remove(aside)
    if found is None and reader.none:
        return "none", None
    if plain(found) == right:
        return "right", None
    if reader.fits is not None:
        try:
            if reader.fits(found):
                return "other", None
        except Exception as error:  # noqa: BLE001
            return "traceback", f"its users die of {type(error).__name__}: {error}"
    return "silent", f"reads {str(found)[:200]}"


def inflict_all(name: str, reader: Reader, directory: Path, damages: Callable[[bytes], Iterator[Damage]]) -> None:
    """Inflict damages on a file, each on a whole one, and fail with those that end wrong."""
    reader.make(directory)
    path = directory / reader.file
    content = path.read_bytes()
    right = plain(reader.read(directory))
    faults = []
    for one in damages(content):
        path.write_bytes(content)
        ended, fault = judge(reader, directory, right, one)
        TABLE.setdefault(name, Counter())[ended] += 1
        if fault:
            faults.append(f"{one.name}: {fault}")
    assert not faults, f"{len(faults)} of them:\n" + "\n".join(faults[:15])


# The readers ---------------------------------------------------------------------------------------------------------


def make_run(directory: Path) -> dict[str, Any]:
    """A done run in a directory of any name: its record, predictions and weights."""
    return plant(directory, configure(directory.parent))


def in_own_folder(directory: Path) -> Path:
    """The directory that a run's configuration means: the record knows its name."""
    return run_directory(configure(directory))


def resealed(record: dict[str, Any]) -> dict[str, Any]:
    """A changed record with a digest that fits, as a program with an error would write it."""
    return {**record, "digest": digest_of(record)}


def ages(record: dict[str, Any]) -> dict[str, Any]:
    """The same as of version 1, which nothing seals."""
    return {key: value for key, value in record.items() if key not in ("digest", "files")} | {"version": 1}


def is_owner(owner: dict[str, Any]) -> bool:
    """Whether a claim can be used by all who ask of it."""
    certainly_dead(owner)
    claim.describe(owner)
    typed = all(owner[key] is None or isinstance(owner[key], kind) for key, kind in OWNER.items())
    return typed and isinstance(owner["restarts"], int)


def make_claim(directory: Path) -> None:
    (directory / claim.CLAIM).write_text(json.dumps({**Claim(directory).content(), "host": "elsewhere"}))


def is_submission(found: dict[str, Any]) -> bool:
    return isinstance(found["log"], str) and (found["job_id"] is None or isinstance(found["job_id"], str))


def make_events(directory: Path) -> None:
    slurm = {"job_id": "7", "array_job_id": "7", "array_task_id": "1", "node": "n1", "restarts": 0}
    append_event(directory, "started", slurm, host="here", pid=1, gpus=None)
    append_event(directory, "preempted", slurm)
    append_event(directory, "started", None, host="there", pid=2, gpus=None)


def are_events(found: list[dict[str, Any]]) -> bool:
    return all(isinstance(e["event"], str) and (e["slurm"] is None or isinstance(e["slurm"], dict)) for e in found)


def make_history(directory: Path) -> None:
    for epoch in (1, 2, 3):
        summary = {"epoch": epoch, "step": 3 * epoch, "loss": 2.0, "parts": {"kd": 1.0}, "elapsed_s": 1.0}
        append_epoch(directory, {**summary, "images_per_s": 100.0, "lr": 0.1, "validation": {"acc": 0.5, "nll": 2.0}})


def is_progress(found: dict[str, Any]) -> bool:
    from harness.runtime.console import duration

    left = max(0.0, found["left_s"] - (time.time() - found["time"]))
    return bool(f"epoch {found['epoch']:d}/{found['epochs']:d}, {duration(left)} left")


def make_predictions(directory: Path) -> None:
    drawn = np.random.default_rng(0)
    logits = {"validation": drawn.normal(size=(40, 10)), "test": drawn.normal(size=(60, 10))}
    write_predictions(directory, logits, {name: np.arange(len(array)) % 10 for name, array in logits.items()})


def are_predictions(found: tuple[dict[str, Any], dict[str, Any]]) -> bool:
    """Logits and labels that every metric can be computed of."""
    logits, labels = found
    for name, array in logits.items():
        assert array.ndim == 2 and np.isfinite(array).all()
        assert labels[name].shape == array.shape[:1] and labels[name].dtype.kind in "iu"
        array[np.arange(len(array)), labels[name]].sum()
    return set(logits) == {"validation", "test"}


def make_weights(directory: Path) -> None:
    drawn = np.random.default_rng(0)
    state = {"linear.weight": drawn.normal(size=(10, 4)).astype(np.float32), "steps": np.array(7), "n": np.zeros(3)}
    write_weights(directory, state, {"model": "some"})


def are_arrays(found: dict[str, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(array, np.ndarray) for name, array in found.items())


IDENTITY = {
    "format": FORMAT,
    "run": "r",
    "data": "d",
    "code": "c",
    "teachers": "t",
    "epochs": 1,
    "attempts": 1,
    "wall_s": 1.0,
    "arithmetic": ["cpu, float32"],
}


def checkpoints(directory: Path) -> Checkpoints:
    return Checkpoints(directory, "r" * 12, "c" * 16, "d" * 16, "t" * 16, Console(io.StringIO()))


def make_training(directory: Path) -> None:
    network = torch.nn.Linear(3, 2)
    training = Training(network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9), step=3)
    checkpoints(directory).save(training, 1, 1, 2.0, ["cpu, float32"])


def load_training(directory: Path) -> Any:
    found = checkpoints(directory).load()
    if found is None:  # what is not gone on with is kept under another name, and said
        assert not (directory / CHECKPOINT).exists()
    return found


class Computed(Findings):
    """A finding of a folder, which no teacher has to be trained for."""

    def __init__(self, folder: Path):
        self.folder, self.about = folder, ["code", "data", []]


FOUND = {"nll": 0.123456789, "pairs": [[0, 1, 0.5], [1, 2, 0.25]], "text": "some"}


def make_finding(directory: Path) -> None:
    Computed(directory)("kind", 1, lambda: FOUND)
    (path,) = directory.glob("kind-*.json")
    path.rename(directory / "found.json")


def read_finding(directory: Path) -> Any:
    """What a student is told where the file is as it is; what it lacks is computed."""
    name = directory / "found.json"
    finding = Computed(directory)
    from harness.store import findings

    real, findings.read_json = findings.read_json, lambda _, *shape: real(name, *shape)
    try:
        return finding("kind", 1, lambda: FOUND)
    finally:
        findings.read_json = real
        for path in directory.glob("kind-*.json"):
            path.unlink()


def check_both(directory: Path, name: str) -> str:
    """What a teacher's user does: all of a run's files against the digests in its record."""
    check_files(directory, read_record(directory), name)
    return "as it was written"


READERS = {
    "record": Reader(RECORD, make_run, read_record, seal=resealed),
    "outline": Reader(RECORD, make_run, read_status),
    "claim": Reader(claim.CLAIM, make_claim, lambda where: read_claim(where / claim.CLAIM), is_owner),
    "submission": Reader("submission.json", lambda where: write_submission(where, "7", "log", array=str(where), task=1), read_submission, is_submission, none=True),
    "config": Reader(CONFIG, lambda where: write_config(where, configure(where)), lambda where: read_config(where / CONFIG), lambda found: isinstance(found, dict)),
    "attempts": Reader("attempts.jsonl", make_events, read_events, are_events),
    "history": Reader("history.jsonl", make_history, read_history, lambda rows: all(isinstance(row, dict) for row in rows)),
    "progress": Reader("progress.json", lambda where: write_progress(where, 1, 3, 9.5), read_progress, is_progress, none=True),
    "predictions": Reader(PREDICTIONS, make_predictions, read_predictions, are_predictions),
    "predictions, by digest": Reader(PREDICTIONS, make_run, partial(check_both, name=PREDICTIONS)),
    "weights": Reader(WEIGHTS, make_weights, read_weights, are_arrays),
    "weights, by digest": Reader(WEIGHTS, make_run, partial(check_both, name=WEIGHTS)),
    "checkpoint": Reader(CHECKPOINT, lambda where: write_checkpoint(where, IDENTITY, b"state" * 100), read_checkpoint),
    "training": Reader(CHECKPOINT, make_training, load_training, none=True),
    "findings": Reader("found.json", make_finding, read_finding),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_or_read_right(name: str, tmp_path: Path) -> None:
    """Bits, cuts, contents of all kinds, and what is no file."""

    def damages(content: bytes) -> Iterator[Damage]:
        yield from damage.flips(content)
        yield from damage.cuts(content)
        yield from damage.texts()
        yield from damage.places()

    inflict_all(name, READERS[name], tmp_path, damages)


@pytest.mark.parametrize("name", ["record", "claim", "submission", "config", "progress", "findings"])
def test_a_value_of_another_type_is_named_or_of_use(name: str, tmp_path: Path) -> None:
    """Each node of a valid JSON file replaced by each wrong one, or gone."""
    reader = READERS[name]
    inflict_all(f"{name}, values", reader, tmp_path, lambda content: damage.values(json.loads(content)))


@pytest.mark.parametrize("name", ["attempts", "history"])
def test_a_line_of_another_type_costs_no_more_than_itself(name: str, tmp_path: Path) -> None:
    def damages(content: bytes) -> Iterator[Damage]:
        first, *others = content.splitlines(keepends=True)
        for one in damage.values(json.loads(first)):
            whole = tmp_path / "line"
            one.inflict(whole)
            yield damage.contents(one.name, whole.read_bytes() + b"\n" + b"".join(others))

    reader = READERS[name]
    kept = 2

    def still(rows: list[Any]) -> bool:
        assert len(rows) >= kept, "the other lines are lost"
        return reader.fits(rows)

    changed = Reader(reader.file, reader.make, reader.read, still)
    inflict_all(f"{name}, values", changed, tmp_path, damages)


# What a digest or a checksum does not tell ----------------------------------------------------------------------------


def npz(**members: bytes) -> bytes:
    """A zip whose members' checksums fit."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_predictions_that_are_well_packed_and_wrong(tmp_path: Path) -> None:
    """Headers of arrays with every bit flipped, sizes that fit no memory, other types, labels that are no classes."""
    logits, labels = np.zeros((6, 3), np.float16), np.arange(6) % 3
    whole = {f"{split}_{what}": npy(array) for split in ("validation", "test")
             for what, array in (("logits", logits), ("labels", labels))}  # fmt: skip

    def damages(_: bytes) -> Iterator[Damage]:
        for name, member in whole.items():
            for one in damage.flips(member[:128], few=40):
                one.inflict(tmp_path / "member")
                yield damage.contents(f"{name}: {one.name}", npz(**{**whole, name: (tmp_path / "member").read_bytes()}))
            for shape in ("(9999999999999, 3)", "(-6, 3)", "(6, 3", "6", "(6, 3, 1)", "(0, 3)", "(6, 0)"):
                changed = member.replace(b"(6, 3)", shape.encode()).replace(b"(6,)", shape.encode())
                yield damage.contents(f"{name} of shape {shape}", npz(**{**whole, name: changed}))
            for other in (
                labels - 1,
                labels + 9,
                labels / 1,
                labels > 0,
                logits * np.nan,
                np.array("text"),
                labels[:5],
            ):
                yield damage.contents(f"{name} = {other!r}", npz(**{**whole, name: npy(other)}))
            yield damage.contents(f"{name} gone", npz(**{key: kept for key, kept in whole.items() if key != name}))

    def make(directory: Path) -> None:
        (directory / PREDICTIONS).write_bytes(npz(**whole))

    inflict_all(
        "predictions, well packed", Reader(PREDICTIONS, make, read_predictions, are_predictions), tmp_path, damages
    )


def test_a_checkpoint_whose_digest_fits_and_whose_state_does_not(tmp_path: Path) -> None:
    """Identities of every wrong type, others' identities, and states that torch cannot load."""
    make_training(tmp_path)
    (path,) = tmp_path.glob(CHECKPOINT)
    _, state = read_checkpoint(tmp_path)
    identity = {**IDENTITY, **checkpoints(tmp_path).of}

    def sealed(header: Any, state: bytes) -> bytes:
        rest = json.dumps(header).encode() + b"\n" + state
        return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest

    def damages(_: bytes) -> Iterator[Damage]:
        for name, changed in damage.variants(identity):
            yield damage.contents(name, sealed(changed, state))
        for key in ("run", "data", "code"):
            yield damage.contents(f"another's {key}", sealed({**identity, key: "f" * 16}, state))
        for source in (damage.flips(state, few=30), damage.cuts(state, few=15), damage.texts()):
            for one in source:
                one.inflict(tmp_path / "state")
                yield damage.contents(f"state: {one.name}", sealed(identity, (tmp_path / "state").read_bytes()))

    def attempted(found: Any) -> bool:
        """Torch lets bits of a state pass; the digest is there for these."""
        identity, _ = found
        return all(
            isinstance(identity[key], (int, float)) and identity[key] >= 0 for key in ("epochs", "attempts", "wall_s")
        )

    assert path.exists()
    reader = Reader(CHECKPOINT, make_training, load_training, attempted, none=True)
    inflict_all("training, sealed anew", reader, tmp_path, damages)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "BEAT_S", 0.05)
    monkeypatch.setattr(claim, "LOOK_S", 0.01)
    monkeypatch.setattr(claim, "STALE_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_no_damaged_claim_is_in_the_way_for_ever(tmp_path: Path) -> None:
    """Whoever comes takes over what is nobody's claim, or says what it is; who owns it goes in peace."""
    found = Counter()
    for one in (*damage.texts(), *damage.places(), *damage.cuts(b'{"token": "a", "host": "b", "pid": 1}', few=4)):
        path = tmp_path / claim.CLAIM
        one.inflict(path)
        with damage.in_time():
            living([tmp_path])
            assert is_claimed(tmp_path) in (None, NOBODY), one.name
            try:
                with Claim(tmp_path):
                    assert read_claim(path)["host"], one.name
                    one.inflict(path)  # while it is owned
                    is_claimed(tmp_path)
                    time.sleep(0.12)  # heartbeats
                found["taken over"] += 1
            except Unreadable as error:
                assert str(path) in str(error)
                found["named"] += 1
        for left in tmp_path.iterdir():
            damage.remove(left)
    TABLE["claim, taken over"] = found
    assert found["taken over"] > 10


@pytest.mark.usefixtures("quick")
def test_views_are_right_whatever_is_in_the_bank(tmp_path: Path) -> None:
    """Both files of a teacher's views, damaged: built anew, or done without, and always the same answers."""
    data = load(configure(tmp_path)["data"])
    few = Split(data.train.images[:20], data.train.labels[:20])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    write_weights(tmp_path, {name: tensor.numpy() for name, tensor in network.state_dict().items()}, {})
    cache = ViewCache(
        Augmentation(few, 1, False, 0),
        data.classes,
        "code",
        "fingerprint",
        "cpu",
        Console(io.StringIO()),
        lambda: False,
    )

    def answers(directory: Path) -> Any:
        return cache.answers(directory, network).clone()

    def damages(content: bytes) -> Iterator[Damage]:
        yield from damage.flips(content, few=25)
        yield from damage.cuts(content, few=8)
        yield from damage.texts()
        yield from damage.places()

    def values(content: bytes) -> Iterator[Damage]:
        yield from damage.values(json.loads(content))

    beside = Path(cache.name()).with_suffix(".json").name
    inflict_all("views", Reader(cache.name(), answers, answers), tmp_path, damages)
    inflict_all("views' checksum", Reader(beside, answers, answers), tmp_path, damages)
    inflict_all("views' checksum, values", Reader(beside, answers, answers), tmp_path, values)
