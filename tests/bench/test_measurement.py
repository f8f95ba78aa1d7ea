"""How steps are warmed up, and in what precision a device's peak is measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import methods
from harness.bench import measurement, naive, subjects
from harness.bench.measurement import MOST, QUIET, Compilations, measure_peak, warm_up, watch_compilations
from methods.perturbation import Perturbation


class Settings(TorchDispatchMode):
    """Notes whether matrix products and convolutions may be TF32 where one is computed, and every operator's name."""

    def __init__(self):
        super().__init__()
        self.tf32, self.names = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        self.names.add(name)
        if name in ("aten::mm", "aten::convolution"):
            self.tf32.add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_peak_and_steps_compute_alike(precision, tf32, monkeypatch):
    monkeypatch.setitem(measurement.PRODUCTS, "cpu", 8)
    with Settings() as peak:
        measure_peak(torch.device("cpu"), precision)
    options = subjects.Options(
        model="preresnet8", batch=4, size=8, teachers=2, methods=["kd"], device="cpu", precision=precision
    )
    subject = subjects.make_subjects(options, False, torch.device("cpu"))[-1]
    with Settings() as steps:
        subject.step()
    assert peak.tf32 == steps.tf32 == {(tf32, tf32)}


class Compiled:
    """A compiled subject, of which each pair of members is compiled once and recorded the next time."""

    def __init__(self, compilations, times):
        recipe = {"compile": "reduce-overhead"}
        self.trainer = SimpleNamespace(method=Perturbation(), teachers=[None] * 3, recipe=recipe, capture=None)
        self.compilations, self.times = compilations, times
        self.visits = []

    def step(self):
        pair = tuple(self.trainer.method.pair)
        if self.visits.count(pair) < self.times:
            self.compilations.add(None)
        self.visits.append(pair)


def test_warming_up_takes_every_pair_until_nothing_is_compiled_any_more():
    compilations = Compilations()
    subject = Compiled(compilations, times=2)
    warm_up(subject, compilations)
    assert len(set(subject.visits)) == 6 and len(subject.visits) == 6 * (2 + QUIET)
    assert subject.trainer.method.pair is None, "later steps draw theirs"


class Captured(Compiled):
    """A captured subject, of which each pair is done once, captured the next time, and replayed."""

    def __init__(self):
        super().__init__(Compilations(), times=0)
        self.trainer.recipe, self.trainer.capture = {"compile": None}, SimpleNamespace(graphs=set())

    def step(self):
        super().step()
        if self.visits.count(self.visits[-1]) == 2:
            self.trainer.capture.graphs.add(self.visits[-1])


def test_warming_up_captures_every_pair():
    subject = Captured()
    warm_up(subject, subject.compilations)
    assert len(subject.trainer.capture.graphs) == 6 and len(subject.visits) == 6 * (2 + QUIET)


def test_warming_up_ends_where_every_step_is_compiled_anew():
    compilations = Compilations()
    subject = Compiled(compilations, times=1000)
    warm_up(subject, compilations)
    assert len(subject.visits) == 6 * MOST


def test_compilations_are_counted():
    network = nn.Linear(2, 2)
    network.compile(backend="eager")
    torch.compiler.reset()
    with watch_compilations() as compilations:
        network(torch.ones(1, 2))
        assert compilations.count == 1
        network(torch.ones(1, 2))
        assert compilations.count == 1
    torch.compiler.reset()


@pytest.mark.slow
def test_a_compiled_step_has_the_operations_of_an_eager_one():
    found = {}
    for mode in (None, "default"):
        options = subjects.Options(
            model="preresnet8", batch=4, size=8, teachers=2, methods=["supervised"], device="cpu", compile=mode
        )
        (subject,) = subjects.make_subjects(options, False, torch.device("cpu"))
        subject.step()
        found[mode] = measurement.count_flops(subject)
    assert found["default"] == found[None] > 0


def test_naive_inputs_send_no_number_to_the_device():
    """`weights[i] = 1` makes a tensor of the number on the host, and copies it."""
    method = naive.build("combined")
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    student = naive.LatentBE(network, 2)
    teachers = methods.method.Teachers([network, network])
    images, labels = torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    with Settings() as seen:
        method.inputs(images, labels, teachers, student, torch.Generator())
    assert "aten::lift_fresh" not in seen.names
