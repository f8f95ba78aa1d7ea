"""Settings of the device: those of steps hold for steps alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.store.identity import run_hash
from harness.training import arithmetic
from harness.training.data import Dataset, Split
from methods.baselines.supervised import Supervised
from tests.running import configure, make_trainer, run


def flags() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before, environment = flags(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before
    torch.use_deterministic_algorithms(environment)


class Watching(Supervised):
    """Notes the settings that its steps meet."""

    def loss(self, images, labels, teachers, student):
        self.seen = flags()
        return super().loss(images, labels, teachers, student)

    def deploy(self, student):
        self.seen_between = flags()
        return super().deploy(student)


@pytest.mark.parametrize(
    ("precision", "deterministic", "expected"),
    [
        ("float32", False, (False, False, True)),
        ("tf32", False, (True, True, True)),
        ("bfloat16", False, (False, False, True)),
        ("tf32", True, (True, True, False)),
    ],
)
def test_steps_have_settings_of_their_own(precision: str, deterministic: bool, expected: tuple) -> None:
    """TF32 is one setting, of convolutions and of matrix products, and evaluation never has it."""
    images = torch.randint(256, (16, 1, 8, 8), dtype=torch.uint8)
    split = Split(images, torch.arange(16) % 2)
    data = Dataset(2, (0.5,), (0.2,), split, split, split)
    method = Watching()
    arithmetic.prepare(deterministic)
    trainer = make_trainer(data, method, precision=precision, epochs=1)
    trainer.run(trainer.start(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))))
    assert method.seen == expected
    assert method.seen_between == flags() == (False, False, False)
    assert torch.are_deterministic_algorithms_enabled() is deterministic


def test_a_run_says_how_it_computes(tmp_path: Path) -> None:
    """deterministic is no other run; TF32 is."""
    record = run(tmp_path, "supervised", deterministic=True)
    assert record["config"]["deterministic"] is True
    assert record["provenance"]["gpu"] is None
    plain = configure(tmp_path, "supervised")
    assert record["hash"] == run_hash(plain)
    assert record["hash"] != run_hash(configure(tmp_path, "supervised", train__precision="tf32"))


KERNEL_MODULE = """NVRM version: NVIDIA UNIX {} for x86_64  570.124.06  Release Build  (dvs-builder@U16)
GCC version:  gcc version 13.3.0
"""


@pytest.mark.parametrize("kind", ["x86_64 Kernel Module", "Open Kernel Module"])
def test_versions_that_decide_last_digits_are_recorded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    about = {"cuda": "12.8", "cudnn": 91002, "driver": None, "deterministic": False, "visible": "3"}
    assert arithmetic.describe(torch.device("cuda")) == about, "a container need not show its driver"
    (tmp_path / "version").write_text(KERNEL_MODULE.format(kind))
    arithmetic.prepare(deterministic=True)
    about |= {"driver": "570.124.06", "deterministic": True}
    assert arithmetic.describe(torch.device("cuda")) == about
