"""A large checkpoint is written while the training goes on; whoever ends waits for it, and hears what went wrong."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import nn

from harness.run import checkpoint
from harness.run.checkpoint import Checkpoints
from harness.run.run import execute
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted
from harness.store import files
from harness.store.checkpoint import CHECKPOINT
from harness.store.identity import run_directory
from tests.running import configure, make_trainer, run
from tests.trial import make_noise

Saving = tuple[Checkpoints, Callable[[], None]]


@pytest.fixture(autouse=True)
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LARGE", 0)


@pytest.fixture
def save(tmp_path: Path) -> Saving:
    training = make_trainer(make_noise()).start(nn.Conv2d(1, 2, 3))
    kept = Checkpoints(tmp_path, "run", "code", "data", "teachers", Console())
    return kept, lambda: kept.save(training, 1, 1, 1.0, [])


def test_saving_does_not_wait_for_the_disk(tmp_path: Path, save: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, save_now = save
    may_go_on = threading.Event()
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: may_go_on.wait(60))
    save_now()
    assert not (tmp_path / CHECKPOINT).exists()
    may_go_on.set()
    kept.wait()
    assert kept.load()[0]["epochs"] == 1


def test_what_goes_wrong_is_heard_of_once(save: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept, save_now = save
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        save_now()
        with pytest.raises(OSError, match="No space left"):
            kept.wait()
    save_now()
    kept.wait()
    assert kept.load() is not None


def test_a_run_that_is_stopped_has_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    asked = iter([False] * 4 + [True] * 100)
    config = configure(tmp_path / "stopped", "supervised", train__epochs=3)
    with pytest.raises(Interrupted):
        execute(config, Console(), lambda: next(asked))
    place = run_directory(config)
    assert (place / CHECKPOINT).exists()
    execute(config, Console())
    assert "resumed at step 4" in (place / "run.log").read_text()
    assert not (place / CHECKPOINT).exists()
    whole = configure(tmp_path / "whole", "supervised", train__epochs=3)
    run(tmp_path / "whole", "supervised", train__epochs=3)
    mine, other = (load_file(run_directory(one) / "student.safetensors") for one in (config, whole))
    assert all(bool((mine[name] == other[name]).all()) for name in mine)
