"""What the lab cannot do, said in one line."""

from __future__ import annotations


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message is meant for the user."""


def show(name: object) -> str:
    """A name for a message: on one line, whatever characters somebody put into it."""
    text = str(name)
    return text if text.isprintable() else ascii(text)
