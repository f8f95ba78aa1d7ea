"""One damaged file among many: it costs its own run, by name; who looks at a folder sees all the others.

With -s a table; HARNESS_FUZZ=N as in tests/damage.py.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness import status, verify
from harness.jobs import queue
from harness.run import verification
from harness.run.single import metrics_table
from harness.runtime.console import Console, printable
from harness.store import claim
from harness.store.attempts import append_event
from harness.store.claim import Claim
from harness.store.files import Damaged
from harness.store.history import HISTORY, append_epoch, write_progress
from harness.store.identity import run_directory, run_hash
from harness.store.predictions import PREDICTIONS
from harness.store.record import RECORD, answers, digest_of, read_record
from harness.store.runs import find_runs
from harness.store.submission import write_config, write_submission
from harness.store.weights import WEIGHTS
from harness.sweep.estimate import estimate_hours
from harness.sweep.plan import make_plan
from harness.sweep.report import collect, show
from harness.sweep.summary import sweep_table
from harness.sweep.watch import outcome
from tests import damage
from tests.damage import Damage
from tests.planted import TEST, plant
from tests.running import configure, run

TABLE: Counter[str] = Counter()
Record = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    for name, count in TABLE.items():
        print(f"\n{name:<36} injected {count:>6}, all of them ended right", end="")
    print()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that are silent are soon known to be; SLURM knows that job 7 has died."""
    monkeypatch.setattr(claim, "BEAT_S", 0.0)
    monkeypatch.setattr(claim, "LOOK_S", 0.0)
    monkeypatch.setattr(queue, "live_jobs", lambda jobs: {})
    ended = queue.Ending("OUT_OF_MEMORY", "0:125", "n1")
    monkeypatch.setattr(queue, "accounted", lambda jobs: dict.fromkeys(jobs, ended))


def some(damages: Iterator[Damage], few: int) -> Iterator[Damage]:
    """All of them in the long form, else a few, drawn."""
    chosen = list(damages)
    yield from chosen if damage.MANY else random.Random(0).sample(chosen, min(few, len(chosen)))


def every(content: bytes) -> Iterator[Damage]:
    yield from damage.flips(content, few=15)
    yield from damage.cuts(content, few=5)
    yield from damage.texts()
    yield from damage.places()


def values(content: bytes) -> Iterator[Damage]:
    yield from damage.values(json.loads(content))


def lines(content: bytes) -> Iterator[Damage]:
    for name, changed in damage.variants(json.loads(content.splitlines()[-1])):
        yield damage.contents(name, content + json.dumps(changed).encode() + b"\n")


def try_all(name: str, path: Path, damages: Iterator[Damage], look: Callable[[], None]) -> None:
    """Inflict damages on a file, look each time, and put the file back; fails with all that went wrong."""
    content, faults = path.read_bytes(), []
    others = set(path.parent.iterdir())
    for one in damages:
        one.inflict(path)
        try:
            with damage.in_time():
                look()
        except (Exception, damage.Hangs) as error:  # noqa: BLE001  this is what the test is about
            faults.append(f"{one.name}: {type(error).__name__}: {error}")
        TABLE[name] += 1
        damage.remove(path)
        path.write_bytes(content)
        for left in set(path.parent.iterdir()) - others:
            damage.remove(left)
    assert not faults, f"{len(faults)} of them:\n" + "\n".join(faults[:15])


def sealed(record: Record) -> bytes:
    """A record with a digest that fits, as a program with an error would write it."""
    return json.dumps({**record, "digest": digest_of(record)}).encode()


def aged(record: Record) -> Record:
    """The same as version 1 wrote it: nothing seals it."""
    return {key: value for key, value in record.items() if key not in ("digest", "files")} | {"version": 1}


def changed_records(record: Record) -> Iterator[Damage]:
    """Records with each node replaced or gone: as it is, with a digest that fits, and of version 1."""
    for name, changed in damage.variants(record):
        yield damage.contents(name, json.dumps(changed).encode())
        if isinstance(changed, dict):
            with suppress(ValueError):  # NaN has no digest
                yield damage.contents(f"sealed {name}", sealed(changed))
    for name, changed in damage.variants(aged(record)):
        yield damage.contents(f"version 1 {name}", json.dumps(changed).encode())


# status ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Path]:
    """A folder of runs in several states, by their state."""
    configs = {name: configure(tmp_path, seed=seed) for seed, name in enumerate(("done", "failed", "open", "dead"))}
    places = {name: run_directory(config) for name, config in configs.items()}
    for name in ("done", "failed"):
        plant(places[name], configs[name], name)
    for name, job in (("open", None), ("dead", "7")):
        place = places[name]
        append_event(place, "started", {"job_id": "7", "node": "n1"}, host="here", pid=1)
        write_submission(place, job, "some.log")
        write_config(place, configs[name])
        write_progress(place, 1, 3, 9.5)
        append_epoch(place, {"epoch": 1, "loss": 1.0})
        (place / claim.CLAIM).write_text(json.dumps({**Claim(place).content(), "host": "elsewhere"}))
    return places


FILES = (
    ("done", RECORD),
    ("failed", RECORD),
    *(("open", name) for name in ("claim.json", "progress.json", "attempts.jsonl", "submission.json", "history.jsonl")),
    *(("dead", name) for name in ("config.json", "submission.json", "claim.json", "attempts.jsonl")),
)


@pytest.mark.parametrize(("state", "name"), FILES)
def test_status_shows_every_run(
    state: str,
    name: str,
    folder: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = folder[state] / name
    if state == "open":  # every claim that is there is as good as renewed
        monkeypatch.setattr(claim, "BEAT_S", 1e9)

    def look() -> None:
        capsys.readouterr()
        assert status.main([str(path.parent.parent), "--all"]) == 0
        shown = capsys.readouterr().out
        assert all(place.name in shown for place in folder.values()), shown
        assert "\x1b" not in shown
        for place in folder.values():
            for line in shown.splitlines():
                if line.startswith(place.name) and "damaged" in line:
                    assert place == path.parent, f"another run suffers: {line}"
        (folder["dead"] / RECORD).unlink(missing_ok=True)

    content = path.read_bytes()
    try_all("status, damaged files", path, every(content), look)
    if name.endswith(".jsonl"):
        try_all("status, values", path, some(lines(content), 200), look)
    elif name == RECORD:
        try_all("status, records", path, some(changed_records(json.loads(content)), 200), look)
    else:
        try_all("status, values", path, some(values(content), 200), look)


# plan and report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """A folder with two finished runs, and their configurations."""
    runs = tmp_path_factory.mktemp("runs")
    configs = [configure(runs, seed=seed, teachers__size=1, threads=1) for seed in (0, 1)]
    for config in configs:
        run(runs, seed=config["seed"], teachers__size=1, threads=1)
    return runs, configs


def test_a_sweep_plans_and_reports_every_run(
    trained: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a record says: what is believed can be shown, what is not is named, and the neighbour is in the table."""
    runs, configs = trained
    mine, other = map(run_directory, configs)

    def look() -> None:
        plan = make_plan(configs)
        assert other in plan.finished
        assert (mine in plan.finished) + (mine in plan.students) + (mine in plan.refused) == 1
        estimate_hours(plan, runs)
        capsys.readouterr()
        show(collect(plan, {}, Console()), plan, runs, 0.0, Console())
        shown = capsys.readouterr().out
        assert " of 2 runs done in " in shown
        try:
            record = read_record(mine)
        except Damaged as error:
            assert str(mine / RECORD) in str(error)
            assert printable(f"missing  {mine.name}: {error}") in shown
            return
        if record is not None:
            answers(record, configs[0]["evaluate"])
            outcome(record, mine)
            if record["status"] == "done":
                Console().show(metrics_table(record))
                assert record["version"] == 1 or run_hash(record["config"]) == record["hash"]

    path = mine / RECORD
    record = read_record(mine)
    try_all("plan and report, damaged files", path, every(path.read_bytes()), look)
    try_all("plan and report, records", path, some(changed_records(record), 250), look)


@pytest.mark.parametrize("name", [RECORD, WEIGHTS, PREDICTIONS])
def test_verify_finds_what_does_not_hold(
    name: str, trained: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    """No damage passes, but for those that change nothing; the neighbour holds whatever happens."""
    mine, other = map(run_directory, trained[1])
    path = mine / name
    content = path.read_bytes()

    def look() -> None:
        capsys.readouterr()
        ended = verify.main([str(mine), str(other)])
        shown = capsys.readouterr().out
        assert f"{other.name}: holds" in shown
        assert ended == 1, shown
        assert f"{mine.name}: DOES NOT HOLD: " in shown
        assert shown.splitlines()[-1] == "1 of 2 runs hold"

    assert verify.main([str(mine), str(other)]) == 0
    damages = [one for source in (damage.flips(content, few=4), damage.cuts(content, few=2)) for one in source]
    try_all("verify", path, iter([*damages, *damage.places(), *list(damage.texts())[::4]]), look)


def test_another_runs_history_does_not_hold(
    trained: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, others = (run_directory(config) / HISTORY for config in trained[1])
    content = mine.read_bytes()
    mine.write_bytes(others.read_bytes())
    assert verify.main([str(mine.parent), str(others.parent)]) == 1
    assert f"{mine.parent.name}: DOES NOT HOLD: history.jsonl is of another run" in capsys.readouterr().out
    mine.write_bytes(content)
    assert verify.main([str(mine.parent)]) == 0


def test_a_failed_run_holds_nothing(trained: tuple[Path, list[Record]], capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = map(run_directory, trained[1])
    failed = mine.parent / "failed"
    plant(failed, trained[1][0], status="failed")
    assert verify.main([str(failed), str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2 runs hold; 1 claim no numbers"
    assert verify.main([str(failed)]) == 2


def test_a_folder_that_nobody_may_look_into_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's, in the folder of a group; root, who is refused nothing, is somebody else for as long."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    closed, run = Path("closed"), Path("kd-s0-0123456789ab")
    closed.mkdir(0o700)
    run.mkdir()
    me, console = os.geteuid(), Console()  # now: nobody may read all that it imports
    os.seteuid(65534) if me == 0 else closed.chmod(0)
    try:
        assert list(find_runs(Path())) == [closed, run]
        with pytest.raises(Damaged, match=r"closed/record.json cannot be read: Permission denied"):
            verification.verify(closed, False, console)
    finally:
        os.seteuid(me)
        closed.chmod(0o700)


def test_means_of_extreme_numbers_are_numbers(tmp_path: Path) -> None:
    """Each of two losses is one; their sum is not."""
    config = configure(tmp_path)
    directory = run_directory(config)
    for value, believed in ((1e299, True), (1e308, False)):
        plant(directory, config, metrics={"student": {"test": {**TEST, "nll": value}}})
        if believed:
            sweep_table([read_record(directory)] * 50)
        else:
            with pytest.raises(Damaged, match="is not as it should be"):
                read_record(directory)
