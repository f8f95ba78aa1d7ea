"""Steps that are captured and replayed. Real graphs need a GPU (tests/gpu); here a graph is the same work once more, on the
tensors that it was captured with, which is what a replay comes to."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import methods
from harness.training import capture, networks
from harness.training.capture import Capture, is_capturable
from harness.training.data import Dataset, Split
from harness.training.trainer import Trainer
from methods.baselines.moved import Moved
from methods.kd import KD
from tests.pretended_gpu import pretending
from tests.running import make_trainer

MEMBERS = 3


class Rerun:
    """Stands for a CUDA graph."""

    def __init__(self, work: Callable[..., dict[str, Tensor]], inputs: list, results: dict[str, Tensor]):
        self.work, self.inputs, self.results = work, inputs, results
        self.drawn_from = [
            (generator, generator.get_state()) for generator in inspect.getclosurevars(work).nonlocals["used"]
        ]

    def replay(self) -> None:
        for generator, state in self.drawn_from:  # a graph has what was drawn when it was captured
            generator.set_state(state)
        for name, value in self.work(*self.inputs).items():
            self.results[name].copy_(value.detach())


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(self: Capture, kind, work, inputs) -> None:
        self.inputs = self.inputs or [value if value is None else value.clone() for value in inputs]
        results = {name: torch.zeros(()) for name in ("loss", "loss_ce", "loss_kd")}
        self.graphs[kind] = capture.Captured(Rerun(work, self.inputs, results), results)

    monkeypatch.setattr(Capture, "capture", remember)


def make(name: str | type, captured: bool, device: str | torch.device = "cpu", **recipe) -> tuple[Trainer, object]:
    images = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(32) % 3)
    data = Dataset(3, (0.5,), (0.2,), split, split, split).to(device)

    def network(seed: int) -> nn.Module:
        return networks.build("preresnet_tiny", 3, (0.5,), (0.2,), torch.Generator().manual_seed(seed), 8).to(device)

    cls = methods.load(name) if isinstance(name, str) else name
    bank = [network(m) for m in range(MEMBERS if cls.teachers is None else cls.teachers)]
    trainer = make_trainer(data, cls(), bank, **recipe)
    trainer.capture = Capture(torch.device("cpu")) if captured else None
    training = trainer.start(network(9))
    training.student.train()
    return trainer, training


def losses(trainer: Trainer, training: object, epochs: int = 6) -> list[float]:
    found = []
    for epoch in range(epochs):
        for batch in trainer.batches.epoch(epoch):
            found.append(float(trainer.take_step(training, batch)["loss"].detach()))
    return found


@pytest.mark.parametrize("recipe", [{}, {"accumulate": 2}, {"average": "ema", "label_smoothing": 0.1}])
@pytest.mark.parametrize("name", ["supervised", "kd", "weight_averaging", "perturbation", "combined"])
def test_captured_steps_are_the_same_steps(name: str, recipe: dict) -> None:
    """Whatever pair is drawn, at every learning rate, with every batch."""
    expected = losses(*make(name, False, **recipe))
    trainer, training = make(name, True, **recipe)
    assert losses(trainer, training) == expected
    assert trainer.capture.graphs, "none was captured"


def test_every_kind_of_step_has_a_graph_of_its_own() -> None:
    trainer, training = make("combined", True)
    losses(trainer, training, 12)
    assert len(trainer.capture.graphs) == MEMBERS * (MEMBERS - 1)


class Drawing(KD):
    """Draws a number that decides what it does, and does not say so."""

    capturable = True

    def inputs(self, images, labels, teachers, student, generator):
        return images * float(torch.rand((), generator=generator)), labels


class Telling(Drawing):
    """The same, of a class that does not say that it may be captured."""


def test_a_method_that_hides_its_draws_is_refused() -> None:
    trainer, training = make(Drawing, True)
    with pytest.raises(TypeError, match=r"Drawing\.inputs draws other numbers than its `choice`"):
        losses(trainer, training)


def test_a_class_says_for_itself_that_it_may_be_captured() -> None:
    assert is_capturable(Drawing())
    assert not is_capturable(Telling())
    every = {name: methods.load(name)() for group in methods.groups().values() for name in group}
    others = {name for name, method in every.items() if not is_capturable(method)}
    moved = {name for name, method in every.items() if isinstance(method, Moved)}  # each image is drawn for
    assert others == moved | {"end2", "deep_ensemble"} and len(moved) == 9


class Noisy(nn.Module):
    """Decides on the host what it does."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images) * float(torch.rand(()))


def test_a_network_that_draws_on_the_host_is_not_captured(capsys: pytest.CaptureFixture[str]) -> None:
    trainer, training = make("supervised", True)
    training.student = Noisy(training.student)
    losses(trainer, training)
    assert trainer.capture.describe() == {"graphs": 0, "failure": "the network draws random numbers on the host"}
    assert "draws random numbers on the host" in capsys.readouterr().err


def test_too_many_kinds_of_steps_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    chosen = Capture(torch.device("cpu"))
    chosen.begun = True
    chosen.graphs = dict.fromkeys(range(capture.MOST), None)
    assert chosen("one more", lambda: {"loss": 1}, ()) == {"loss": 1}
    assert chosen.describe() == {"graphs": 0, "failure": f"there are more than {capture.MOST} kinds of them"}


class Looking(KD):
    """Waits for the device in its loss, which no graph can."""

    capturable = True

    def loss(self, images, labels, teachers, student):
        parts = super().loss(images, labels, teachers, student)
        float(parts["loss"])
        return parts


def test_where_capturing_fails_steps_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a pretended GPU, which refuses as a real one does; the reason is the first error, not what came of it."""
    monkeypatch.undo()
    with pretending():
        device = torch.device("cuda")
        expected = losses(*make(Looking, False, device))
        trainer, training = make(Looking, False, device)
        trainer.capture = Capture(device)
        assert losses(trainer, training) == expected
        found = trainer.capture.describe()
    assert found["graphs"] == 0
    assert "not permitted when stream is capturing" in found["failure"]
    assert capsys.readouterr().err.count("steps are not captured as CUDA graphs") == 1


@pytest.mark.parametrize("name", ["supervised", "weight_averaging", "combined"])
def test_nothing_of_a_steps_graph_outlives_it(name: str) -> None:
    """What accumulates gradients would else be on the stream of the step before, which no capture can follow."""
    trainer, training = make(name, False, epochs=1)
    seen, real = [], trainer.take_step

    def step(training, batch):
        nodes = [torch.autograd.graph.get_gradient_edge(p).node for p in training.student.parameters()]
        seen.append(sum("marked" in node.metadata for node in nodes))
        for node in nodes:
            node.metadata["marked"] = True
        del nodes, node
        return real(training, batch)

    trainer.take_step = step
    trainer.run_epoch(training, 0)
    assert len(seen) > 2 and not any(seen)
