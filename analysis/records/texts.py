"""Texts that somebody else wrote: names, messages, notes. What comes in through a door is made plain there, so that
nobody behind it meets a newline, an escape sequence of a terminal, or half a character.
"""

from __future__ import annotations

from collections.abc import Sequence


def plain(text: str) -> str:
    r"""One line of printable characters; all others (control, direction, surrogates) as `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """A message as one plain line: its line breaks are spaces."""
    return plain(" ".join(text.split()))


def few(names: Sequence[str], shown: int = 4) -> str:
    """The first of many names."""
    return ", ".join(names[:shown]) + (f" ... ({len(names)})" if len(names) > shown else "")
