"""Which device a run takes; CUDA is pretended by its answers, nvidia-smi by an executable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.config import ConfigError
from harness.training import device
from harness.training.device import choose_device
from tests.nvidia_smi import Card, install, uuid


class Cuda:
    """What torch.cuda says where the GPUs of nvidia-smi's numbers `order` are visible, in that order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]):
        self.current: list[torch.device] = []
        self.asked: list[object] = []
        answers = {
            "is_available": lambda: bool(order),
            "device_count": lambda: len(order),
            "get_device_properties": self.properties,
            "set_device": self.current.append,
        }
        self.order = order
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    def properties(self, which: torch.device | int) -> SimpleNamespace:
        self.asked.append(which)
        k = which if isinstance(which, int) else which.index
        return SimpleNamespace(uuid=uuid(self.order[k]).removeprefix("GPU-"))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    device.freest.cache_clear()
    yield
    device.freest.cache_clear()


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_the_gpu_with_the_most_free_memory_is_taken_in_whatever_order_cuda_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("PATH", install(tmp_path, Card(free=70_000), Card(free=80_000), Card(free=50_000)))
    cuda = Cuda(monkeypatch, order=(2, 0, 1))
    chosen = choose_device(name)
    assert chosen == torch.device("cuda", 2)
    assert cuda.current == [chosen], "nothing may land on GPU 0"
    monkeypatch.setenv("PATH", install(tmp_path, Card(free=90_000), Card(), Card()))
    assert choose_device(name) == chosen, "all runs of a process share the images on one GPU"


def test_the_only_gpu_is_taken_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    Cuda(monkeypatch, order=(5,))
    assert choose_device("auto") == torch.device("cuda", 0)


def test_a_named_gpu_becomes_the_current_one_and_is_known_before_it_can_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch, order=(0, 1))
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert cuda.current == [torch.device("cuda", 1)]
    assert cuda.asked == [torch.device("cuda", 1)]


def test_a_gpu_that_is_not_there_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, order=())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(ConfigError, match=r"device=cuda: .* 0 usable GPUs \(CUDA_VISIBLE_DEVICES=-1\); use"):
        choose_device("cuda")
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    Cuda(monkeypatch, order=(0, 1))
    with pytest.raises(ConfigError, match=r"device=cuda:2: this process has 2 usable GPUs; use"):
        choose_device("cuda:2")
    for name in ("gpu", "meta"):
        with pytest.raises(ConfigError, match="use auto, cpu, cuda or cuda:N"):
            choose_device(name)


def test_a_lost_gpu_is_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not device.is_lost()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not device.is_lost()

    def refuse() -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    assert device.is_lost()
