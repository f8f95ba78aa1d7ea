"""Fingerprints of data, as records hold them, and which of them are of the same data.

    0123456789abcdef              a set in memory: every pixel, label and split
    files-0123456789abcdef        a set in files: labels and splits, names, sizes, and a sample of each file's contents
    files-0123456789abcdef+...    with data.verify=full: and a hash of all contents

Records of older code have of a set in files what looks like that of one in memory: a hash of names and sizes.
"""

from __future__ import annotations

FILES = "files-"


def agree(known: str, now: str) -> bool:
    """Whether two fingerprints are equal in all that both know."""
    return all(one == other for one, other in zip(known.split("+"), now.split("+"), strict=False))


def without_contents(fingerprint: str) -> str:
    """What every fingerprint of these data says, however closely they were looked at."""
    return fingerprint.partition("+")[0]


def is_older(known: str, now: str) -> bool:
    """Whether a fingerprint is of an older kind than another one, of the same data or not."""
    return now.startswith(FILES) and not known.startswith(FILES)
