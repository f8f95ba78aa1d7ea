"""A claim on a directory: only one process at a time trains what belongs there, on any shared file system.

A claim is a file that only one can make (see `files.place`; over NFS too), rewritten by a heartbeat. Others watch it by
their own clocks: a claim that has not changed for STALE_S is a dead process's and may be taken over. Where
the claimant's death is certain (same host and its process is gone, or the same SLURM job was restarted)
nobody waits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from harness.store.files import GUARDS, Damaged, Unreadable, place, read_json, to_json, write_json
from harness.store.provenance import own_job, restarts

CLAIM = "claim.json"
BEAT_S = 5.0
LOOK_S = 0.5  # between looks at another one's claim
STALE_S = 45.0


class Claimed(RuntimeError):
    """Somebody else, alive, works in the directory."""


class TakenOver(Claimed):
    """This process was silent for so long that its claim went to another one; the directory is no longer its own."""


class Claim:
    """A context in which this process alone owns `directory`.

    Entering raises Claimed where somebody else does; `wait_s` is how long it first watches for a sign of
    life, and should exceed STALE_S for a dead claimant's claim on another host to be taken over. With `until`, it
    waits as long as it takes, and raises only where `until` says that it has waited enough.
    """

    def __init__(self, directory: Path, wait_s: float = STALE_S + 2 * BEAT_S, until: Callable[[], bool] | None = None):
        self.path = Path(directory) / CLAIM
        self.wait_s, self.until = wait_s, until
        self.token = uuid.uuid4().hex
        self.beats = 0
        self.lost_to: str | None = None
        self._seen = time.monotonic()  # when the claim was last known to be ours
        self._ended = threading.Event()

    def __enter__(self) -> Claim:
        watched, since = None, time.monotonic()
        while True:
            owner = read_claim(self.path)  # first, and only that: many may wait for one
            if owner is None:
                self._take()
                continue
            if owner["token"] == self.token:  # the file alone says whose it is, whatever became of taking it
                break
            if owner != watched:
                if self.until is None and watched is not None and owner["token"] == watched["token"]:
                    raise Claimed(describe(owner))  # it moved while we watched: alive
                watched, since = owner, time.monotonic()
            if certainly_dead(owner) or time.monotonic() - since > STALE_S:
                self._set_aside(owner)
                continue
            if self.until() if self.until else time.monotonic() - since > self.wait_s:
                raise Claimed(describe(owner))
            time.sleep(LOOK_S)
        self._seen = time.monotonic()
        GUARDS[self.path.parent.absolute()] = self.check
        self._thread = threading.Thread(target=self._beat, daemon=True, name="claim-heartbeat")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        GUARDS.pop(self.path.parent.absolute(), None)
        owner = read_claim(self.path)
        if owner is not None and owner.get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def lost(self) -> bool:
        """Whether another process owns the directory by now. Cheap enough for every step: it reads the claim only where
        a heartbeat is overdue, as after a pause of this process or its file system.
        """
        if self.lost_to is None and time.monotonic() - self._seen > 2 * BEAT_S:
            self._look()
        return self.lost_to is not None

    def check(self) -> None:
        """Look at the claim now, before something is written. Raises TakenOver where it is another's."""
        if self.lost_to is None:
            self._look()
        if self.lost_to is not None:
            raise TakenOver(f"taken over during a pause of this process: {self.lost_to}")

    def content(self) -> dict[str, Any]:
        return {
            "token": self.token,
            "beats": self.beats,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": process_start(os.getpid()),
            "processes": visible_processes(),
            "job": own_job(),
            "restarts": restarts(),
        }

    def _take(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".claim.{self.token}")
        scratch.write_text(to_json(self.content()))
        try:
            with contextlib.suppress(FileExistsError):
                place(scratch, self.path)
        finally:
            scratch.unlink()

    def _set_aside(self, owner: dict[str, Any]) -> None:
        """Move a dead claim away; a rename has one winner, and a claim that changed meanwhile is put back."""
        aside = self.path.with_name(f".claim.dead.{self.token}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        if aside.is_dir():  # nobody's claim
            aside.rename(self.path.with_name(f"{self.path.name}.damaged-{self.token}"))
            return
        if read_claim(aside) != owner:
            with contextlib.suppress(FileExistsError):
                place(aside, self.path)
        aside.unlink(missing_ok=True)

    def _look(self) -> None:
        owner = read_claim(self.path)
        if owner is None:
            self.lost_to = "another one has finished there"
        elif owner["token"] != self.token:
            self.lost_to = describe(owner)
        else:
            self._seen = time.monotonic()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            # A full disk or a file server that restarts may pass; until then the claim grows old.
            with contextlib.suppress(OSError, TakenOver):
                self._look()
                if self.lost_to is not None:
                    return
                self.beats += 1
                write_json(self.path, self.content())


class Owner(TypedDict):
    """Who claims a directory; None where that is not known."""

    token: str | None
    host: str | None
    pid: int | None
    pid_started: str | None
    job: str | None
    restarts: int


NOBODY: Owner = {"token": None, "host": None, "pid": None, "pid_started": None, "job": None, "restarts": 0}


def read_claim(path: Path) -> dict[str, Any] | None:
    """The claim's content, or None where there is none. One that cannot be believed, of a full disk, say, is nobody's:
    it becomes stale like any other. Raises Unreadable.
    """
    try:
        return read_json(path, Owner)
    except Unreadable:
        raise
    except Damaged:
        return {**NOBODY}


def is_claimed(directory: Path) -> dict[str, Any] | None:
    """The claim on a directory unless its owner is certainly dead; for planning and status, without
    waiting.
    """
    try:
        owner = read_claim(directory / CLAIM)
    except Unreadable:
        return {**NOBODY}
    return None if owner is None or certainly_dead(owner) else owner


def living(directories: Sequence[Path]) -> set[Path]:
    """Those directories whose claims are renewed, now or within the next heartbeats.

    Clocks of nodes and file servers may differ by any amount: a claim that looks old is looked at again, by this
    process's own clock, until it changes or a heartbeat is overdue.
    """
    alive, silent = set(), {}
    for directory in directories:
        owner = is_claimed(directory)
        if owner is None:
            continue
        with contextlib.suppress(OSError):
            if abs(time.time() - (directory / CLAIM).stat().st_mtime) < 2 * BEAT_S:
                alive.add(directory)
            else:
                silent[directory] = owner
    until = time.monotonic() + 2 * BEAT_S + 2 * LOOK_S
    while silent and time.monotonic() < until:
        time.sleep(LOOK_S)
        for directory, owner in list(silent.items()):
            if is_claimed(directory) != owner:
                alive.add(directory)
                del silent[directory]
    return alive


def certainly_dead(owner: dict[str, Any]) -> bool:
    """Whether the claimant cannot be alive: an earlier attempt of this same job, or a process of this host
    that is gone.
    """
    if owner["job"] is not None and owner["job"] == own_job() and owner["restarts"] < restarts():
        return True
    if owner["host"] != socket.gethostname() or owner["pid_started"] is None:
        return False
    if owner.get("processes") != visible_processes():
        return False
    return process_start(owner["pid"]) != owner["pid_started"]


def process_start(pid: int) -> str | None:
    """A mark of this very process (pids are reused): boot and start time. None where there is no /proc or no
    process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"


def visible_processes() -> list[Any]:
    """What a process's absence from /proc depends on beside its death: containers and users may not see each other's."""
    with contextlib.suppress(OSError):
        return [str(Path("/proc/self/ns/pid").readlink()), os.getuid()]
    return [None, os.getuid()]


def describe(owner: dict[str, Any]) -> str:
    if owner["pid"] is None:
        return "a claim that cannot be read is on it"
    job = f", job {owner['job']}" if owner["job"] else ""
    return f"process {owner['pid']} on {owner['host']}{job} is working on it"
