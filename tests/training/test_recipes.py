"""Recipes: what each option of `train=` does, and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import fields

import pytest
import torch
from torch import nn

from harness.config import ConfigError
from harness.config.options import CHOICES, TRAIN, Train
from harness.store.identity import run_hash
from harness.training import networks, optimisation
from harness.training.data import Dataset, Split
from harness.training.data.batches import Batch
from harness.training.state import Training
from harness.training.trainer import Trainer
from methods.losses import label_loss
from methods.weight_averaging import WeightAveraging
from tests.arbitrary import small_network, teachers_for
from tests.running import configure, make_trainer, run

CLASSES, SIZE = 3, 5


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 1, SIZE, SIZE), dtype=torch.uint8, generator=draw)
    split = Split(images, torch.randint(CLASSES, (24,), generator=draw))
    return Dataset(CLASSES, (0.5,), (0.2,), split, split, split)


def make_network() -> nn.Module:
    """A network without batch norm, in double precision, so that batches may be cut anywhere."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIZE * SIZE, CLASSES)]
    return nn.Sequential(*layers).double()


def step(trainer: Trainer, training: Training, data: Dataset, first: int = 0) -> dict:
    rows = slice(first, first + 8)
    return trainer.take_step(training, Batch(data.train.images[rows].double() / 255, data.train.labels[rows]))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_every_choice_is_known_to_the_code():
    assert set(CHOICES["schedule"]) == set(optimisation.SCHEDULES)
    assert set(CHOICES) <= {f.name for f in fields(Train)}
    assert {"paper", "short", "imagenet", "smoke"} <= set(TRAIN)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [1.0, 0.75, 0.25, 0.0]),
        ("linear", [1.0, 2 / 3, 1 / 3, 0.0]),
        ("step", [1.0, 1.0, 0.1, 0.01]),
        ("constant", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules(schedule, expected):
    rates = [optimisation.learning_rate(step, 1.0, 2, 8, schedule) for step in (2, 4, 6, 8)]
    assert rates == pytest.approx(expected)
    assert optimisation.learning_rate(1, 1.0, 2, 8, schedule) == 0.5


def test_learning_rate_grows_with_the_batch(data):
    assert make_trainer(data, lr_batch_size=4).rate(0) == pytest.approx(0.2)
    assert make_trainer(data, lr_batch_size=None).rate(0) == pytest.approx(0.1)


def test_accumulation_equals_the_whole_batch(data):
    whole, parts = make_trainer(data), make_trainer(data, accumulate=4)
    a, b = whole.start(make_network()), parts.start(make_network())
    for first in (0, 8):
        losses = [float(step(t, s, data, first)["loss"].detach()) for t, s in ((whole, a), (parts, b))]
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert torch.allclose(weights(a.student), weights(b.student), rtol=0, atol=1e-12)


def test_label_smoothing(data):
    logits, labels = torch.randn(6, CLASSES), torch.arange(6) % CLASSES
    smooth = make_trainer(data, label_smoothing=0.1).smooth(labels)
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.allclose(label_loss(logits, smooth), expected)
    assert torch.allclose(label_loss(torch.stack([logits, logits]), smooth), expected)


def test_adamw_decouples_decay_and_keeps_the_factors_rate():
    teachers = teachers_for(small_network(), 2, 0)
    student = WeightAveraging().student(small_network(), 2, torch.Generator())
    groups = WeightAveraging().parameter_groups(student, 0.01)
    optimiser = optimisation.build_optimiser(groups, "adamw", 0.9, True, torch.device("cpu"))
    assert isinstance(optimiser, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.01, 0.01]
    assert [group["lr_scale"] for group in optimiser.param_groups] == [1.0, 1.0]
    assert len(teachers) == 2


def test_ema_is_the_running_mean_of_weights_and_statistics(data):
    trainer = make_trainer(data, average="ema", ema_decay=0.5)
    training = trainer.start(nn.Sequential(nn.BatchNorm2d(1), make_network()).double())
    training.student.train()
    expected = copy.deepcopy(training.student.state_dict())
    for k in range(3):
        step(trainer, training, data)
        decay = min(0.5, (1 + k) / (10 + k))
        for name, now in training.student.state_dict().items():
            mixed = decay * expected[name] + (1 - decay) * now if now.is_floating_point() else now
            expected[name] = mixed.clone()
    assert all(torch.allclose(value, expected[name]) for name, value in training.judged.state_dict().items())
    assert not torch.equal(weights(training.judged), weights(training.student))


def test_swa_is_the_mean_over_the_last_epochs(data):
    trainer = make_trainer(data, average="swa", swa_start=0.5)
    seen = []
    trainer.report = lambda summary: seen.append(weights(training.student))
    training = trainer.start(make_network().float())
    trainer.run(training)
    assert len(seen) == 4
    assert torch.allclose(weights(training.judged), (seen[2] + seen[3]) / 2, atol=1e-6)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_an_interrupted_run_keeps_its_average(data, average):
    saved = []
    trainer = make_trainer(data, average=average, swa_start=0.25, checkpoint_every=1)
    trainer.save = lambda training: saved.append(copy.deepcopy(training.state()))
    whole = trainer.run(trainer.start(make_network().float()))
    resumed = trainer.start(make_network().float())
    resumed.restore(saved[1])
    trainer.run(resumed)
    assert torch.equal(weights(whole.judged), weights(resumed.judged))


def test_steps_per_epoch_are_limited(data):
    assert make_trainer(data, steps_per_epoch=2).steps_per_epoch == 2
    assert make_trainer(data, steps_per_epoch=100).steps_per_epoch == 3


# Whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"train__optimiser": "adamw", "train__lr": 0.01, "train__schedule": "linear"},
        {"train__average": "swa", "train__swa_start": 0.5, "train__label_smoothing": 0.1},
        {"train__average": "ema", "train__accumulate": 2},
    ],
)
def test_runs_of_other_recipes(tmp_path, options):
    record = run(tmp_path, "combined", train__epochs=6, **options)
    assert record["status"] == "done"
    (history,) = tmp_path.glob("*/history.jsonl")
    losses = [json.loads(row)["loss"] for row in history.read_text().splitlines()]
    assert losses[-1] < losses[0]  # it learns; after so few steps batch-norm statistics, and so the test, lag behind


@pytest.mark.parametrize("method", ["kd", "combined"])
def test_teachers_of_another_network(tmp_path, method):
    record = run(tmp_path, method, model="wrn10_1", teachers__model="preresnet_tiny")
    assert record["status"] == "done"
    assert all("preresnet_tiny" in name for name in record["provenance"]["teachers"])
    student = networks.build("wrn10_1", 10, (0.5,), (0.2,))
    assert record["cost"]["parameters"] == sum(p.numel() for p in student.parameters())


def test_teachers_of_another_recipe(tmp_path):
    record = run(tmp_path, teachers__train={"epochs": 1, "batch_size": 25})
    name = record["provenance"]["teachers"][0]
    history = (tmp_path / "teachers" / name / "history.jsonl").read_text().splitlines()
    assert len(history) == 1


def test_a_batch_larger_than_the_data_is_refused_before_teachers_are_trained(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.batch_size=501 is more than the 500 train images"):
        run(tmp_path, train__batch_size=501)
    assert not (tmp_path / "teachers").exists()


def test_a_network_that_does_not_fit_the_images_is_refused(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise ValueError("vit_b_16 cannot cut images of 30x30 into patches")

    monkeypatch.setattr("harness.training.networks.build", refuse)
    with pytest.raises(ConfigError, match="cannot cut images"):
        run(tmp_path, model="vit_b_16")
    assert not (tmp_path / "teachers").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train__optimiser": "adam"}, "train.optimiser is one of sgd, adamw, not 'adam'"),
        ({"train__schedule": "cos"}, "train.schedule is one of cosine, linear, step, constant"),
        ({"train__accumulate": 3}, "train.batch_size=50 does not divide into train.accumulate=3 parts"),
        ({"train__label_smoothing": 1.0}, "train.label_smoothing must lie in [0, 1)"),
        ({"train__steps_per_epoch": 0}, "train.steps_per_epoch must be at least 1"),
        ({"train__warmup_epochs": 2}, "train.warmup_epochs=2 leaves nothing of train.epochs=2"),
        ({"teachers__train": {"lr": -1}}, "teachers.train.lr must be positive"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError) as caught:
        configure(tmp_path, **options)
    assert message in str(caught.value)


def test_hashes_ignore_where_data_lie(tmp_path):
    here, there = (configure(tmp_path, data__root=root, data__download=True) for root in ("a", "b"))
    assert run_hash(here) == run_hash(there)
    here, there = (configure(tmp_path, data="folder", data__root=root) for root in ("a", "b"))
    assert run_hash(here) != run_hash(there)
