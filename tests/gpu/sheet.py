"""What one check measured and judged, on paper at once: a check that is killed leaves what it had."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SHEET = "sheet.json"


@dataclass
class Sheet:
    """A check's device, a folder of its own, and its findings.

    small: a rehearsal. The networks are tiny, and what only a real GPU can show is measured but not judged.
    """

    device: torch.device
    folder: Path
    small: bool = False
    measured: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether there is a real GPU to judge."""
        return self.device.type == "cuda" and not self.small

    def note(self, **values: Any) -> None:
        """Write down what was measured."""
        self.measured |= values
        self.write()

    def expect(self, holds: bool, otherwise: str) -> None:
        """Write down `otherwise` unless something holds; the check goes on, and has failed."""
        if not holds:
            self.wrong.append(otherwise)
        self.write()

    def write(self, finished: bool = False) -> None:
        found = {"measured": self.measured, "wrong": self.wrong, "finished": finished}
        (self.folder / SHEET).write_text(json.dumps(found))


def read_sheet(folder: Path) -> dict[str, Any]:
    """What a check has written in its folder so far, finished or not."""
    try:
        return json.loads((folder / SHEET).read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # it died before, or while, it wrote
        return {"measured": {}, "wrong": [], "finished": False}
