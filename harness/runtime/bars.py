"""Live bars where a notebook is what a person looks at."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import Progress

EVERY_S = 0.2  # a browser that is told more often falls behind


class NotebookBars(Progress):
    """Bars in a cell's output, which its page redraws. Rich's own there need a widget, which a saved notebook lacks."""

    def start(self) -> None:
        from IPython.display import display

        self.shown = time.monotonic()
        self.handle: Any = display(self.make_tasks_table(self.tasks), display_id=True)

    def refresh(self) -> None:
        if time.monotonic() - self.shown >= EVERY_S:
            self.shown = time.monotonic()
            self.handle.update(self.make_tasks_table(self.tasks))

    def stop(self) -> None:
        self.handle.update({"text/plain": "", "text/html": ""}, raw=True)
