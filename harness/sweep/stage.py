"""A part of something larger: a sweep that ends without a table."""

from __future__ import annotations

import shlex

from harness.sweep.sweep import Sweep


class Stage(Sweep):
    """Runs that are not to be looked at yet, or not as test results."""

    def report(self) -> int:
        for directory, reason in self.not_run.items():
            self.console.say(f"{directory.name}: {reason}")
        return 0

    def say_how_to_reattach(self) -> None:
        self.console.say(
            f"to watch: python -m harness.status {shlex.quote(str(self.folder))}; to go on: the same command"
        )
