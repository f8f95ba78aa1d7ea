"""Threads of the CPU: their number is the same wherever a small network is trained, and in the record."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness import verify
from harness.run.run import execute
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted
from harness.store.identity import run_directory
from harness.training import arithmetic, threads
from tests.running import configure, run


@pytest.mark.parametrize(
    ("model", "asked", "granted", "used"),
    [
        ("preresnet_tiny", None, None, 1),
        ("preresnet_tiny", None, "4", 1),
        ("preresnet_tiny", 3, "4", 3),
        ("wrn28_4", None, None, 8),
        ("wrn28_4", None, "4", 4),
        ("wrn28_4", None, "16", 8),  # more than there are would only wait for each other
        ("wrn28_4", 3, "4", 3),
    ],
)
def test_a_small_network_has_one_and_others_what_there_is(
    monkeypatch: pytest.MonkeyPatch, model: str, asked: int | None, granted: str | None, used: int
) -> None:
    monkeypatch.setattr(threads, "OWN", 8)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if granted:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    assert threads.choose({"model": model, "threads": asked}) == used


def test_a_run_leaves_the_next_one_of_its_process_as_many_as_there_were() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ArithmeticError), threads.use(before + 2):
        assert torch.get_num_threads() == before + 2
        raise ArithmeticError
    assert torch.get_num_threads() == before


def test_a_record_knows_every_arithmetic_that_it_was_computed_by(tmp_path: Path) -> None:
    """As after a requeue to a node with fewer cores."""
    config, asked = configure(tmp_path, "supervised", threads=2), iter(range(100))
    with pytest.raises(Interrupted):
        execute(config, Console(), lambda: next(asked) > 4)
    record = execute({**config, "threads": 1}, Console())
    capability = torch.backends.cpu.get_cpu_capability()
    expected = [
        f"cpu {capability}, {count}, float32 convolutions, torch {torch.__version__}"
        for count in ("2 threads", "1 thread")
    ]
    assert record["provenance"]["arithmetic"] == expected
    assert record["provenance"]["threads"] == 1
    assert run_directory(config).name.endswith(record["hash"])


@pytest.mark.parametrize(
    ("precision", "variable", "known"),
    [
        ("float32", None, "float32"),
        ("tf32", None, "float32"),  # which a CPU has not
        ("bfloat16", None, "bfloat16"),
        ("float32", "BF16", "float32 as bf16"),
        ("float32", "STRICT", "float32"),
    ],
)
def test_the_precision_is_what_the_device_has(
    monkeypatch: pytest.MonkeyPatch, precision: str, variable: str | None, known: str
) -> None:
    monkeypatch.delenv(arithmetic.LESS_ON_CPU, raising=False)
    if variable:
        monkeypatch.setenv(arithmetic.LESS_ON_CPU, variable)
    assert arithmetic.of_convolutions(torch.device("cpu"), precision) == known


def test_a_run_is_verified_by_as_many_threads_as_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threads, "OWN", 3)
    record = run(tmp_path, "supervised", model="preresnet8")
    monkeypatch.setattr(threads, "OWN", 1)
    assert verify.main([str(run_directory(record["config"])), "--train"]) == 0
    assert "; trained again to the same files" in capsys.readouterr().out
