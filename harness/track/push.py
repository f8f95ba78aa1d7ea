"""What is sent, and when: every run's page, again where its folder has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from harness.runtime.console import Console, complain
from harness.status import look_at
from harness.store.aside import TRAINED
from harness.store.claim import Claim, Claimed
from harness.store.files import Damaged
from harness.store.history import HISTORY
from harness.store.record import RECORD
from harness.store.runs import find_runs
from harness.track.page import Page, read_page
from harness.track.tracker import Refused, Tracker

PATIENCE = 3  # refusals in a row: then it takes none


class Twice(ValueError):
    """Two folders hold the same run: a tracker could show either, or a mixture."""


Signature = tuple[tuple[int, int] | None, ...]


class Push:
    """The runs at or below some folders, on their way to a tracker. Other senders of the same runs have to wait."""

    def __init__(self, tracker: Tracker, folders: Sequence[Path], console: Console):
        self.tracker, self.folders, self.console = tracker, folders, console
        self.pages: dict[Path, Page | None] = {}  # as last read
        self.looked: dict[Path, Signature] = {}  # of the folder, as last sent
        self.there: set[Path] = set()  # those that the tracker shows
        self.wrong: dict[Path, str] = {}
        self.places: dict[str, Path] = {}  # by a run's hash
        self.claims: dict[Path, Claim | None] = {}
        self.released = ExitStack()

    def __enter__(self) -> Push:
        return self

    def __exit__(self, *ended: object) -> None:
        self.released.close()

    def send(self) -> int:
        """Send what is new, and say so in a line; of how many runs. Raises Claimed where another process sends these runs."""
        done, refused = Counter[str](), 0
        seen: set[Path] = set()
        places = [place for folder in self.folders for place in find_runs(folder, seen)]
        for place in places:
            self.claim(place.absolute().parent)
            signature = sign(place)
            if self.looked.get(place) == signature:
                continue
            try:
                how = self.send_one(place)
                self.wrong.pop(place, None)
                self.looked[place] = signature
                done[how or ""] += 1
                refused = 0
            except (Damaged, Twice, Refused, OSError) as error:
                self.complain(place, str(error))
                refused += isinstance(error, Refused)
                if refused == PATIENCE:
                    complain("the tracker takes nothing; the other runs were not tried")
                    break
        del done[""]
        if done:
            how = ", ".join(f"{count} {name}" for name, count in done.items())
            ended = sum(page is not None and page.ending is not None for page in self.pages.values())
            self.console.say(f"sent {done.total()} of {len(places)} runs ({how}); {ended} have ended")
        while self.tracker.notes:
            self.console.say(f"note: {self.tracker.notes.pop(0)}")
        return done.total()

    def send_one(self, place: Path) -> str | None:
        """Send a run's page; how, None where there was nothing to send. Raises Damaged, Twice, Refused and OSError."""
        self.pages[place] = None
        page = self.pages[place] = read_page(place)
        if page is None or not (page.ending or self.tracker.live):
            return None
        if (other := self.places.setdefault(page.hash, place)) != place:
            raise Twice(f"the same run stands in {other}, too: send each to a place or project of its own")
        how = self.tracker.send(page)
        self.there.add(place)
        return how

    def complain(self, place: Path, why: str) -> None:
        """Say, once, why a run was not sent."""
        if self.wrong.get(place) != why:
            complain(f"{place.name} was not sent: {why}")
        self.wrong[place] = why

    def go_on(self) -> bool:
        """Whether a run of these has not ended: it runs, or waits to."""
        open_ended = [place for place, page in self.pages.items() if page is None or page.ending is None]
        return any(run.state in ("running", "waiting") for run in look_at(open_ended))

    def claim(self, folder: Path) -> None:
        """Keep others from sending the runs of a folder to a tracker of this kind. Raises Claimed."""
        if folder not in self.claims:
            guarded = folder / f".track-{type(self.tracker).__name__.lower()}"
            try:
                self.released.callback(remove, guarded)
                self.claims[folder] = self.released.enter_context(Claim(guarded))
            except Claimed as error:
                raise Claimed(f"{folder}: its runs are being sent, {error}") from error
            except OSError as error:
                self.claims[folder] = None
                self.console.say(f"note: {folder} takes no claim ({error.strerror}): let nobody else send its runs now")
        claim = self.claims[folder]
        if claim is not None and claim.lost():
            raise Claimed(f"{folder}: another process sends its runs by now, {claim.lost_to}")


def sign(place: Path) -> Signature:
    """What changes where a run's page does."""
    found = []
    for name in (RECORD, TRAINED, HISTORY):
        try:
            about = (place / name).stat()
            found.append((about.st_mtime_ns, about.st_size))
        except OSError:  # reading says why
            found.append(None)
    return tuple(found)


def remove(guarded: Path) -> None:
    """Remove the folder of a claim, unless somebody has the next one on it."""
    with suppress(OSError):
        guarded.rmdir()
