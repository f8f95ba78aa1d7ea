"""Deliberate errors, one at a time in a copy of the code: `python -m tests.mutations [PART OF A NAME ...]`.

Prints for each error which tests it turned red (the first of them); exit status 1 if one went unnoticed. Takes some
seconds an error that has tests of its own, a minute or more where all of TRAINING may notice; no test runs it. An error
whose line was rewritten since is an error of these lists, and said to be.
"""

from __future__ import annotations

from typing import NamedTuple

TRAINING = (
    *("methods/test_methods.py", "methods/test_baselines_losses.py", "methods/test_baselines_students.py"),
    *("methods/test_properties.py", "training/test_golden.py", "evaluation/test_diagnostics.py"),
    *("reference/test_reference.py", "reference/test_reference_files.py"),
)


class Mutation(NamedTuple):
    """Replace `right`, which stands in the file exactly once, by `wrong`; `tests`, of this folder, have to notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...] = TRAINING  # files, or single tests as pytest names them
