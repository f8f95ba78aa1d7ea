"""Equal seeds pair runs: whatever the method draws, split, weights, order and augmentation are the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import methods
from harness import streams
from harness.config.options import Data, Train
from harness.run.teachers import teacher_config
from harness.store.identity import run_directory
from harness.training import networks
from harness.training.data import load
from harness.training.data.changes import image_changes
from harness.training.trainer import Trainer
from methods.kd import KD
from methods.method import Teachers

RECIPE = vars(Train(epochs=3, batch_size=50, warmup_epochs=1))


@pytest.fixture(scope="module")
def digits():
    return load(vars(Data()))


def build(digits, seed):
    return networks.build("preresnet_tiny", 10, digits.mean, digits.sd, streams.generator(seed, "init"))


def trainer(digits, name, seed, teachers=4, changes=(), **recipe):
    method = methods.load(name)()
    used = teachers if method.teachers is None else method.teachers
    bank = Teachers([build(digits, f"teacher/0/{m}") for m in range(used)])
    return Trainer(method, digits, bank, RECIPE | recipe, padding=1, flip=False, seed=seed, changes=changes)


def shown(digits, name, seed, steps=12, **more):
    """Images and labels that the loop hands to a method, while the method does its own drawing in between."""
    loop = trainer(digits, name, seed, **more)
    training = loop.start(build(digits, seed))
    seen = []
    for epoch in range(2):
        for batch in loop.batches.epoch(epoch):
            seen.append((batch.images.clone(), batch.labels.clone()))
            if len(seen) <= steps:
                loop.take_step(training, batch)
    return seen


@pytest.mark.parametrize("name", ["ensemble_kd", "weight_averaging", "perturbation", "combined"])
def test_methods_see_the_same_images_in_the_same_order(digits, name):
    reference, other = shown(digits, "kd", 0), shown(digits, name, 0)
    assert len(reference) == 20
    for (images, labels), (images_too, labels_too) in zip(reference, other, strict=True):
        assert torch.equal(images, images_too)
        assert torch.equal(labels, labels_too)


@pytest.mark.parametrize("name", ["ensemble_kd", "weight_averaging", "perturbation", "combined"])
def test_methods_see_the_same_images_after_every_change(digits, name):
    changes = image_changes(vars(Data(randaugment=2, cutout=3)), digits)
    reference, other = (shown(digits, chosen, 0, 3, changes=changes, mixup=1.0) for chosen in ("kd", name))
    assert reference[0][1].shape == (50, 10)
    for (images, labels), (images_too, labels_too) in zip(reference, other, strict=True):
        assert torch.equal(images, images_too)
        assert torch.equal(labels, labels_too)


class Watching(nn.Module):
    """A teacher that keeps what it was shown."""

    def forward(self, images):
        self.seen = images.clone()
        return images.flatten(1)[:, :10]


def test_teachers_see_mixed_images(digits):
    teacher = Watching()
    loop = Trainer(KD(), digits, Teachers([teacher]), RECIPE | {"mixup": 1.0}, padding=1, flip=False, seed=0)
    batch = next(loop.batches.epoch(0))
    loop.take_step(loop.start(build(digits, 0)), batch)
    assert torch.equal(teacher.seen, batch.images)
    plain = next(loop.batches.source.epoch(0))
    assert not torch.equal(plain.images, batch.images)


def test_seeds_differ_and_zero_is_a_seed(digits):
    zero, one = shown(digits, "kd", 0, steps=0), shown(digits, "kd", 1, steps=0)
    assert not torch.equal(zero[0][1], one[0][1])
    assert torch.equal(zero[0][0], shown(digits, "kd", 0, steps=0)[0][0])
    assert not torch.equal(zero[0][1], zero[10][1])  # and epochs differ


def test_initial_weights_are_shared_where_shapes_agree(digits):
    plain = trainer(digits, "kd", 3).start(build(digits, 3)).student
    members = trainer(digits, "combined", 3).start(build(digits, 3)).student
    shared = dict(members.network.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, shared[name])
    other = trainer(digits, "kd", 4).start(build(digits, 4)).student
    assert not torch.equal(plain.network.stem.weight, other.network.stem.weight)


def test_the_pair_of_a_step_depends_on_the_step_alone():
    from methods.diversify import draw_pair

    def pairs(skip):
        return [draw_pair(4, streams.generator(0, "perturbation", step)) for step in range(skip, 200)]

    assert pairs(50) == pairs(0)[50:]
    drawn = set(pairs(0))
    assert len(drawn) == 12 and all(i != j for i, j in drawn)


def config(seed=0, chosen=0, size=4, **more):
    return {
        "method": {"name": "kd", "alpha": 1.0, "temperature": 4.0, "reestimate_bn": False},
        "data": vars(Data()),
        "train": dict(RECIPE),
        "model": "preresnet_tiny",
        "seed": seed,
        "teachers": {"size": size, "set": chosen, "model": None, "train": {}},
        "evaluate": {"diagnostics": False},
        "study": None,
        "runs": "runs",
        "bank": None,
        "device": "cpu",
        "threads": None,
        "force": False,
        "fail_fast": False,
        "harness": {"plan": False},
        "sweep": {"detach": False, "workers": None},
        **more,
    }


def test_teachers_do_not_depend_on_the_student_and_sets_are_disjoint():
    def teachers(**options):
        return {run_directory(teacher_config(config(**options), m)) for m in range(4)}

    assert teachers(seed=0) == teachers(seed=7)
    assert not teachers(chosen=0) & teachers(chosen=1)
    seeds = {teacher_config(config(chosen=k), m)["seed"] for k in range(5) for m in range(5)}
    derived = {streams.derive(seed, purpose) for seed in seeds for purpose in streams.PURPOSES}
    assert len(derived) == 25 * len(streams.PURPOSES)
    assert not derived & {streams.derive(s, p) for s in range(100) for p in streams.PURPOSES}


def test_the_hash_ignores_what_does_not_matter():
    base = run_directory(config())
    for harmless in ({"device": "cuda"}, {"threads": 3}, {"force": True}, {"study": {"question": "?"}}):
        assert run_directory(config(**harmless)) == base
    assert run_directory(config(runs="elsewhere")).name == base.name
    assert run_directory(config(seed=1)) != base
    assert run_directory(config(size=3)) != base
    assert run_directory(config(train={**RECIPE, "lr": 0.01})) != base
