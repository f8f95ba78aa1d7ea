"""The copy of the code that jobs import is the code that it is named for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.jobs.snapshot import take

DAMAGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda place: (place / "methods" / "kd.py").write_text("# another method\n"),
    "cut": lambda place: (place / "harness" / "__init__.py").write_bytes(b""),
    "lost": lambda place: (place / "harness" / "run" / "run.py").unlink(),
    "no file": lambda place: ((place / "methods" / "kd.py").unlink(), (place / "methods" / "kd.py").mkdir()),
    "stranger": lambda place: (place / "torch.py").write_text("raise ImportError\n"),
    "revision": lambda place: (place / "revision.json").write_text('{"revision": "0", "dirty": false}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_copy_that_is_another_by_now_is_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    place = take(tmp_path)
    whole = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert take(tmp_path) == place
    assert len(list(place.parent.iterdir())) == 1
    DAMAGES[damage](place)
    assert take(tmp_path) == place
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == whole
    assert len(list(place.parent.iterdir())) == 2, "what was there can be looked into"
