"""torch.compile: every network of every run, few graphs, none given up in silence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import methods
from harness.training import compilation, networks
from harness.training.data import Dataset, Split
from methods.combined import Combined
from methods.latent_be import convert
from tests.running import make_trainer, run

MEMBERS = 4
COMPILE = nn.Module.compile


@pytest.fixture(autouse=True)
def _without_inductor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are made as ever, and run by torch's own operators: compiling them takes minutes on a CPU."""
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: COMPILE(self, backend="aot_eager"))
    yield
    torch.compiler.reset()
    counters.clear()


def make_data() -> Dataset:
    images = torch.randint(256, (16, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(16) % 3)
    return Dataset(3, (0.5,), (0.2,), split, split, split)


def network(seed: int) -> nn.Module:
    return networks.build("preresnet_tiny", 3, (0.5,), (0.2,), torch.Generator().manual_seed(seed), 8)


def train(name: str, steps: int = 8) -> dict:
    """What was compiled in some steps of a method."""
    bank = [network(m) for m in range(MEMBERS)]
    cls = methods.load(name)
    used = bank if cls.teachers is None else bank[: cls.teachers]
    trainer = make_trainer(make_data(), cls(), used, compile="default", epochs=steps)
    training = trainer.start(network(9))
    training.student.train()
    for epoch in range(steps):
        trainer.take_step(training, next(iter(trainer.batches.epoch(epoch))))
    return compilation.describe("default")


@pytest.mark.slow
def test_one_run_does_not_starve_the_next() -> None:
    """In one process, the hungriest first: each compiles all that it has, whatever the member and the pair."""
    found = {name: train(name) for name in ("combined", "kd", "weight_averaging", "perturbation", "supervised")}
    assert all(about["not_compiled"] == {} and about["not_captured"] == 0 for about in found.values())
    assert found["combined"]["graphs"] <= 6
    assert found["kd"]["graphs"] == 2, "a teacher and a student"
    assert found["supervised"]["graphs"] == 1


@pytest.mark.parametrize(
    ("parts", "expected"), [(1, ["mark", "inputs", "mark", "loss"]), (2, ["mark", *["inputs", "loss"] * 2])]
)
def test_what_looked_at_the_inputs_is_done_with_before_the_loss(
    parts: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA graphs forget at a mark: without one here each pair of teachers would have graphs of its own, and with one while
    gradients add up, those of the first part would be lost.
    """
    seen: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: None)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: seen.append("mark"))
    for name in ("inputs", "loss"):
        real = getattr(Combined, name)
        monkeypatch.setattr(Combined, name, lambda *given, name=name, real=real: seen.append(name) or real(*given))
    trainer = make_trainer(
        make_data(), Combined(), [network(0), network(1)], compile="reduce-overhead", accumulate=parts
    )
    training = trainer.start(network(9))
    trainer.take_step(training, next(iter(trainer.batches.epoch(0))))
    assert seen == expected


def test_a_record_says_what_was_compiled_and_evaluation_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even members, which are compiled for steps, and are shown batches of another size."""
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: COMPILE(self, backend="eager"))
    record = run(
        tmp_path, "weight_averaging", train__compile="default", train__epochs=1, teachers__train={"compile": None}
    )
    about = record["provenance"]["compiled"]
    assert record["diagnostics"]["members"], "they were looked at"
    assert about == {"mode": "default", "graphs": about["graphs"], "not_compiled": {}, "not_captured": 0}
    assert 0 < about["graphs"] == counters["stats"]["unique_graphs"]


def test_what_is_not_compiled_is_said() -> None:
    class Breaking(nn.Linear):
        def forward(self, x):
            x = super().forward(x)
            torch._dynamo.graph_break("a reason of its own")
            return x + 1

    compilation.begin("default")
    broken = Breaking(4, 2)
    compilation.compile_network(broken, "default")
    broken(torch.randn(3, 4))
    about = compilation.describe("default")
    assert about["graphs"] == 2
    assert any("a reason of its own" in reason or "graph_break" in reason for reason in about["not_compiled"])
    assert compilation.describe(None) is None


def test_too_many_graphs_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "GRAPHS", 2)
    compilation.begin("default")
    layers = [nn.Linear(size, 2) for size in (3, 4, 5, 6)]
    for layer in layers:
        compilation.compile_network(layer, "default")
    with pytest.raises(Exception, match="recompile_limit"):
        for layer in layers:
            layer(torch.randn(2, layer.in_features))


def test_a_member_that_is_looked_at_wants_no_gradient_of_weights() -> None:
    """The backward pass to the input holds nothing else, compiled or not."""
    student = convert(network(0), MEMBERS)
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    for observe in (student.member(1), partial(student.observer, 2)):
        logits = observe(images)
        asked = {id(p) for p in student.parameters()}
        pending, seen = [logits.grad_fn], set()
        while pending:
            node = pending.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            assert leaf is None or leaf is images or id(leaf) not in asked
            assert leaf is None or leaf is images, "a weight waits for its gradient"
            pending += [following for following, _ in node.next_functions]


def test_a_member_follows_the_student() -> None:
    """It is frozen, and yet always has the student's weights, also after a step, a load and a move."""
    student = convert(network(0), MEMBERS).train()
    other = convert(network(1), MEMBERS)
    images = torch.rand(2, 1, 8, 8)

    def agrees() -> None:
        assert torch.allclose(student.member(2)(images), student.extract(2).eval()(images), atol=1e-5)

    agrees()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1, fused=True)
    student(images).square().sum().backward()
    optimiser.step()
    agrees()
    student.load_state_dict(other.state_dict())
    agrees()
    student.double().float()
    agrees()
