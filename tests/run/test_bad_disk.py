"""A disk that is full, failing or read-only, at every place where a command writes.

The command fails in one line or comes to the end, and the same command, once there is room, ends as if nothing had
been. HARNESS_FUZZ: every place, every error, once and for good; otherwise a few of them.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.run import bank, data
from harness.store import claim
from harness.store.files import Damaged
from harness.store.record import check_files, lost_files, read_record
from tests.damage import MANY
from tests.faults import Disk, failing

ONE = ("method=kd", "train=smoke", "teachers.size=1", "threads=1")
TWO = ("-m", "method=kd", "seed=0,1", *ONE[1:])
POOL = (*TWO, "sweep.workers=1")
CODES = {"full": errno.ENOSPC, "failing": errno.EIO, "read-only": errno.EROFS}
HEADS = [("here", False), ("here", True), ("pool", False), *([("pool", True)] if MANY else [])]
TABLE: dict[str, Counter[str]] = {}


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    for name, found in TABLE.items():
        ended = ", ".join(f"{count} {how}" for how, count in found.items())
        print(f"\n{name:<32} injected {found.total():>5}: {ended}", end="")
    print()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of ours whose claim could not be removed is silent soon."""
    monkeypatch.setattr(claim, "BEAT_S", 0.5)
    monkeypatch.setattr(claim, "LOOK_S", 0.1)
    monkeypatch.setattr(claim, "STALE_S", 2.0)


def command(arguments: tuple[str, ...], runs: Path) -> tuple[int, str]:
    """The users' command, as in a process that knows nothing yet: exit status, and all that it said."""
    bank.check_teacher.cache_clear()
    data.load_cached.cache_clear()
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        ended = main([*arguments, f"runs={runs}"])
    return ended, said.getvalue()


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def results(runs: Path) -> dict[str, Any]:
    """What the runs and teachers below a folder came to, by the names of their directories; all of them whole."""
    found = {}
    for path in [*runs.glob("*/record.json"), *runs.glob("teachers/*/record.json")]:
        record = read_record(path.parent)
        if record["status"] == "done":
            assert not lost_files(path.parent, record)
            check_files(path.parent, record)
        found[path.parent.name] = record["status"], record["metrics"], record["files"]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], tuple[dict[str, Any], int]]:
    """What a command comes to on a good disk, and how often it writes."""
    known: dict[tuple[str, ...], tuple[dict[str, Any], int]] = {}

    def ask(arguments: tuple[str, ...]) -> tuple[dict[str, Any], int]:
        if arguments not in known:
            runs = tmp_path_factory.mktemp("undisturbed")
            with failing(runs, 10**9) as disk:
                ended, said = command(arguments, runs)
            assert ended == 0, said
            known[arguments] = results(runs), disk.calls
        return known[arguments]

    return ask


def judge(arguments: tuple[str, ...], runs: Path, expected: dict[str, Any], ended: int, said: str, disk: Disk) -> str:
    """How a disturbed command ended; fails where that is not one of the ways in which it may, or where the same command
    does not mend it.
    """
    where = f"{disk.failed} (number {disk.at}):\n{said}"
    assert "Traceback" not in said, where
    for name, (status, *numbers) in results(runs).items():
        if status == "done":
            assert numbers == list(expected[name][1:]), where
    if ended == 0:
        assert results(runs) == expected, where
    elif arguments[0] != "-m":
        assert len(errors(said)) == 1, where
    else:
        assert errors(said) or "missing  " in said, where
    again, said = command(arguments, runs)
    assert again == 0, f"after {where}\nthe same command ended with {again}:\n{said}"
    assert results(runs) == expected, f"after {where}\n{said}"
    litter = [path for path in runs.rglob(".*") if path.name.startswith((".record", ".student", ".checkpoint"))]
    assert not litter, where
    return "done" if ended == 0 else "one line"


def points(calls: int, few: int, shift: int = 0) -> list[int]:
    """Places to fail at: all, or a few spread over them."""
    return list(range(1, calls + 1)) if MANY else list(range(1 + shift, calls + 1, calls // few))[:few]


def try_points(
    name: str,
    arguments: tuple[str, ...],
    where: list[int],
    code: int,
    lasting: bool,
    folder: Path,
    expected: dict[str, Any],
) -> None:
    faults = []
    for at in where:
        runs = folder / str(at)
        runs.mkdir()
        with failing(runs, at, code, lasting) as disk:
            ended, said = command(arguments, runs)
        try:
            how = judge(arguments, runs, expected, ended, said, disk)
        except (AssertionError, Damaged) as error:
            faults.append(f"--- {error}")
            how = "wrong"
        TABLE.setdefault(name, Counter())[how] += 1
        shutil.rmtree(runs)
    assert not faults, f"{len(faults)} of {len(where)}:\n" + "\n".join(fault[:3000] for fault in faults[:8])


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("what", CODES)
def test_one_run_on_a_bad_disk(
    what: str, lasting: bool, tmp_path: Path, undisturbed: Callable[..., tuple[dict[str, Any], int]]
) -> None:
    expected, calls = undisturbed(ONE)
    assert calls > 50, "the places where it writes are counted"
    few, shift = (5, 3) if what == "full" and not lasting else (1, len(what) + 20 * lasting)
    try_points(f"one run, {what}, {lasting=}", ONE, points(calls, few, shift), CODES[what], lasting, tmp_path, expected)


def test_logs_that_cannot_be_written_cost_no_run(
    tmp_path: Path, undisturbed: Callable[..., tuple[dict[str, Any], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for all but run.log, history.jsonl and progress.json: said once a run, and the results are all there."""
    logs = re.compile(r"\.?(run\.log|history\.jsonl|progress\.json)")

    def touch(self: Disk, name: str, path: Any) -> None:
        if not isinstance(path, int) and name in ("open", "replace") and logs.match(Path(os.fsdecode(path)).name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

    expected, _ = undisturbed(ONE)
    monkeypatch.setattr(Disk, "touch", touch)
    runs = tmp_path / "runs"
    runs.mkdir()
    with failing(runs, 0):
        ended, said = command(ONE, runs)
    assert ended == 0, said
    assert results(runs) == expected
    assert said.count("cannot be written (No space left on device); it trains on") == 2
    assert not list(runs.rglob("run.log"))


@pytest.mark.slow
@pytest.mark.parametrize(("head", "lasting"), HEADS)
def test_a_sweep_on_a_bad_disk(
    head: str, lasting: bool, tmp_path: Path, undisturbed: Callable[..., tuple[dict[str, Any], int]]
) -> None:
    """In this process, and by the head of a pool, whose runs are other processes with a good disk."""
    arguments = {"here": TWO, "pool": POOL}[head]
    expected, _ = undisturbed(TWO)
    _, calls = undisturbed(arguments)
    where = points(calls, 1, 15 + 30 * lasting)
    try_points(f"sweep {head}, {lasting=}", arguments, where, errno.ENOSPC, lasting, tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [16, 120, 300])
def test_one_run_on_a_disk_that_is_really_full(
    kilobytes: int, tmp_path: Path, undisturbed: Callable[..., tuple[dict[str, Any], int]]
) -> None:
    expected, _ = undisturbed(ONE)
    runs = tmp_path / "runs"
    runs.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={kilobytes}k")), "tmpfs", str(runs)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    try:
        mounted = mount()
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("this user may not mount a small disk")
    try:
        ended, said = command(ONE, runs)
        if ended:
            assert len(errors(said)) == 1, said
        assert "Traceback" not in said
        assert all(found == expected[name] for name, found in results(runs).items() if found[0] == "done")
        subprocess.run(["mount", "-o", "remount,size=10m", str(runs)], check=True)
        ended, said = command(ONE, runs)
        assert ended == 0, said
        assert results(runs) == expected
    finally:
        subprocess.run(["umount", str(runs)], check=False)
