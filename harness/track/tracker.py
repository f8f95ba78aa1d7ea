"""What every tracker can do, and the two ways in which it cannot."""

from __future__ import annotations

from typing import Protocol

from harness.track.page import Page


class Missing(RuntimeError):
    """The tracker's package is not installed."""

    def __init__(self, package: str):
        super().__init__(f"this needs the extra package {package}: pip install {package}")


class Refused(RuntimeError):
    """The tracker does not take it; the message says what it said."""


class Tracker(Protocol):
    """A place that shows pages, one a run."""

    where: str  # the command that shows them, or takes them further; else the address
    live: bool  # whether it shows runs that have not ended
    notes: list[str]  # what a person has to do, added to by `send`

    def send(self, page: Page) -> str | None:
        """Make the tracker show this page, all of it, once, and nothing else of its run. Returns what was done, None
        where it was shown already.

        Raises Refused; Damaged and OSError where it is a folder.
        """
        ...


NEW, MORE, ANEW = "new", "continued", "written anew"
