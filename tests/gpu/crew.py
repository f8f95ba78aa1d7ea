"""Checks at work beside each other, and the page that they fill."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tests.gpu.checks import Check
from tests.gpu.child import Outcome, start_check

PAGE = "HARNESS_GPU_PAGE"
CORES = 2  # for each check at work


class Crew:
    """Processes that do checks: several beside each other, and when these have ended, those that judge times."""

    def __init__(self, checks: Sequence[Check], folder: Path, device: str = "cuda", small: bool = False):
        self.folder, self.device, self.small = folder, device, small
        self.writing = threading.Lock()
        self.pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // CORES))
        self.begun: dict[Check, Future[Outcome]] = {
            check: self.pool.submit(self.do, check) for check in checks if not check.alone
        }

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def outcome(self, check: Check) -> Outcome:
        """What a check came to, once it has ended."""
        if check.alone:
            wait(self.begun.values())
            return self.do(check)
        return self.begun[check].result()

    def do(self, check: Check) -> Outcome:
        """Run a check, and write its line of the page."""
        outcome = start_check(check, self.folder / str(check), self.device, self.small)
        if page := os.environ.get(PAGE):
            with self.writing, Path(page).open("a") as file:
                file.write(json.dumps(outcome._asdict()) + "\n")
        return outcome
