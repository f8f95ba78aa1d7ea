"""Every method option does what it says; a dead switch fails here."""

from __future__ import annotations

import copy
from dataclasses import asdict

import pytest
import torch

import methods
from harness import streams
from harness.config.options import Train
from harness.training.data import Dataset, Split
from harness.training.data.augmentation import to_unit
from harness.training.data.batches import Batch
from harness.training.trainer import Trainer
from methods.combined import Combined
from methods.diversify import disagreement
from methods.ensemble_kd import EnsembleKD
from methods.kd import KD
from methods.latent_be import convert, rank_one_layers
from methods.losses import soften
from methods.method import Teachers
from methods.perturbation import Perturbation
from methods.weight_averaging import WeightAveraging
from tests.arbitrary import CLASSES, SIZE, images_for, randomise, small_network, student_for, teachers_for

LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture
def network():
    return small_network()


@pytest.fixture
def images(network):
    return images_for(network, 0)


@pytest.fixture
def teachers(network):
    return teachers_for(network, 4, 0)


def shown(method, images, teachers, student, seed=0):
    return method.inputs(images, LABELS, teachers, student, torch.Generator().manual_seed(seed))


def factors(student):
    return [factor for layer in rank_one_layers(student) for factor in (layer.r, layer.s)]


def make_trainer(method, teachers, **recipe):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(24) % CLASSES)
    recipe = asdict(Train(epochs=2, batch_size=4, warmup_epochs=0)) | recipe
    return Trainer(method, Dataset(CLASSES, (0.5,), (0.5,), split, split, split), teachers, recipe, 0, False, 0)


# Losses


def test_a_single_teacher_is_the_first(network, images, teachers):
    before = KD().loss(images, LABELS, teachers, network)["loss"]
    randomise(teachers.networks[3], 99)
    assert KD().loss(images, LABELS, teachers, network)["loss"] == before
    assert EnsembleKD().loss(images, LABELS, teachers, network)["loss"] != before


def test_averages_are_of_softmaxes_or_of_logits(images, teachers):
    logits = teachers(images)
    of_softmaxes = EnsembleKD(temperature=2.0).target(images, teachers)
    of_logits = EnsembleKD(temperature=2.0, average="logits").target(images, teachers)
    torch.testing.assert_close(of_softmaxes, torch.softmax(logits / 2, -1).mean(0))
    torch.testing.assert_close(of_logits, torch.softmax(logits.mean(0) / 2, -1))
    assert (of_softmaxes - of_logits).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [KD, EnsembleKD, WeightAveraging, Perturbation, Combined])
def test_alpha_and_temperature(kind, network, images, teachers):
    members = issubclass(kind, WeightAveraging)
    student = student_for(network, 4, 0).eval() if members else network.eval()
    parts = {
        alpha: kind(alpha=alpha, temperature=3.0).loss(images, LABELS, teachers, student) for alpha in (0.0, 0.25, 1.0)
    }
    logits = student(images)
    rows, labels = logits.flatten(0, -2), LABELS.repeat(4 if members else 1)
    label_term = -torch.log_softmax(rows, 1)[torch.arange(len(rows)), labels].mean()
    targets = torch.softmax(teachers(images) / 3, -1)
    targets = targets if members else targets[0] if kind is KD else targets.mean(0)
    distillation = 9 * -(targets * torch.log_softmax(logits / 3, -1)).sum(-1).mean()
    torch.testing.assert_close(parts[0.0]["loss"], label_term)
    torch.testing.assert_close(parts[1.0]["loss"], distillation)
    torch.testing.assert_close(parts[0.25]["loss"], 0.75 * label_term + 0.25 * distillation)
    torch.testing.assert_close(parts[0.25]["loss_ce"], label_term)
    torch.testing.assert_close(parts[0.25]["loss_kd"], distillation)


def test_member_m_matches_teacher_m(network, images, teachers):
    student = convert(network, 4)
    matched = WeightAveraging().target(images, teachers)
    for m in range(4):
        torch.testing.assert_close(matched[m], soften(teachers.member(m)(images), 4.0))
    WeightAveraging().loss(images, LABELS, teachers, student)["loss"].backward()
    gradients = torch.stack([layer.ds.grad[0] for layer in rank_one_layers(student)][:1])
    randomise(teachers.networks[0], 99)
    student.zero_grad()
    WeightAveraging().loss(images, LABELS, teachers, student)["loss"].backward()
    assert not torch.equal(gradients[0], rank_one_layers(student)[0].ds.grad[0])


# Members


def test_factors_begin_as_asked(network):
    def begin(**options):
        method = WeightAveraging(**options)
        student = method.student(network, 300, torch.Generator().manual_seed(0))
        return torch.cat([factor.detach().flatten() for factor in factors(student)])

    assert (begin() == 1).all()
    for sd in (0.5, 0.1):
        drawn = begin(factors="normal", factors_sd=sd)
        assert abs(drawn.mean() - 1) < 0.01
        assert abs(drawn.std() / sd - 1) < 0.05
    signs = begin(factors="sign")
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05


def test_members_are_as_many_as_teachers(network, teachers):
    for size in (2, 3):
        trainer = make_trainer(WeightAveraging(), Teachers(teachers.networks[:size]))
        student = trainer.start(network).student
        assert student.members == size
        assert {len(factor) for factor in factors(student)} == {size}


def one_step(method, network, teachers, momentum=0.0):
    """The rate of one step of the trainer; the student before, with the loss's gradients alone, and after."""
    trainer = make_trainer(method, teachers, weight_decay=0.1, momentum=momentum, nesterov=momentum > 0)
    training = trainer.start(network)
    images = to_unit(trainer.data.train.images[:4]).double()
    before = copy.deepcopy(training.student)
    probe = copy.deepcopy(training.student).train()
    method.loss(images, LABELS, teachers, probe)["loss"].backward()
    training.student.train()
    trainer.take_step(training, Batch(images, LABELS))
    return trainer.rate(0), before, probe, training.student


@pytest.mark.parametrize(("decay", "pull"), [("one", 0.1), ("none", 0.0)])
def test_factors_are_pulled_to_one_or_not_at_all(network, teachers, decay, pull):
    """The net effect of the paper's rule: M times the mean's gradient, and a decay of weight_decay (r - 1)."""
    method = WeightAveraging(factors="normal", decay=decay)
    rate, before, probe, after = one_step(method, network, teachers)
    layers = zip(*(rank_one_layers(student) for student in (before, probe, after)), strict=True)
    for old, gradient, new in layers:
        for name in ("dr", "ds"):
            deviation, slope = getattr(old, name), getattr(gradient, name).grad
            expected = deviation - rate * (4 * slope + pull * deviation)
            torch.testing.assert_close(getattr(new, name), expected)
        expected = old.weight - rate * (gradient.weight.grad + 0.1 * old.weight)
        torch.testing.assert_close(new.weight, expected)
        expected = old.bias - rate * (gradient.bias.grad + 0.1 * old.bias)
        torch.testing.assert_close(new.bias, expected)


def test_merging_is_by_factors_or_by_outer_products(network, images):
    student = student_for(network, 3, 0).eval()
    by_factors = WeightAveraging().deploy(student)
    by_outer = WeightAveraging(merge="outer").deploy(student)
    layer = rank_one_layers(student)[1]
    rank_one = layer.weight * layer.s.mean(0)[:, None] * layer.r.mean(0)
    torch.testing.assert_close(by_factors[4].weight, rank_one)
    torch.testing.assert_close(by_outer[4].weight, layer.weight * torch.einsum("mo,mi->oi", layer.s, layer.r) / 3)
    assert (by_factors(images) - by_outer(images)).abs().max() > 1e-3


def test_batch_norm_is_reestimated_where_asked(network, teachers):
    teachers = Teachers([teacher.float() for teacher in teachers.networks])
    trainer = make_trainer(EnsembleKD(reestimate_bn=True), teachers)
    student = network.float()
    deployed = trainer.deploy(student)
    features = network[0](to_unit(trainer.data.train.images))
    torch.testing.assert_close(deployed[1].running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(deployed[1].running_var, features.var((0, 2, 3)))
    assert not deployed[1].training and deployed[1].momentum == 0.1
    kept = make_trainer(EnsembleKD(), teachers).deploy(student)
    assert torch.equal(kept[1].running_mean, student[1].running_mean)
    assert torch.equal(kept[0].weight, student[0].weight)


# Inputs


@pytest.mark.parametrize("step", [0.0, 0.5, 2.0])
def test_steps_have_the_size_asked_for(network, images, teachers, step):
    moved = shown(Perturbation(step=step), images, teachers, network)[0] - images
    norms = moved.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, step * SIZE / 255))


def test_clean_images_are_kept_where_asked(network, images, teachers):
    alone, labels = shown(Perturbation(), images, teachers, network)
    assert alone.shape == images.shape and torch.equal(labels, LABELS)
    both, labels = shown(Perturbation(keep_clean=True), images, teachers, network)
    assert torch.equal(both, torch.cat([images, alone]))
    assert torch.equal(labels, torch.cat([LABELS, LABELS]))


def test_the_students_term_is_left_out_where_asked(network, images, teachers):
    student = student_for(network, 4, 0)
    with_term, _ = shown(Combined(), images, teachers, student)
    without, _ = shown(Combined(student_term=False), images, teachers, student)
    assert torch.equal(without, shown(Perturbation(), images, teachers, network)[0])
    assert not torch.equal(with_term, without)
    with pytest.raises(ValueError, match="combined"):
        Perturbation(student_term=True)


def test_the_students_term_opposes_the_teachers(network, images):
    """Members that disagree just as the teachers do leave nothing to ascend."""
    student = student_for(network, 2, 0).eval()
    teachers = Teachers([copy.deepcopy(student.merge()) for _ in range(2)])
    for m, teacher in enumerate(teachers.networks):
        for plain, layer in zip((teacher[0], teacher[4]), rank_one_layers(student), strict=True):
            plain.weight.data = layer.modulate(layer.outer(layer.s[m], layer.r[m])).detach()
            plain.bias.data = (layer.bias * layer.s[m]).detach()
    torch.testing.assert_close(teachers(images), student(images).detach())

    def slope(objective):
        x = images.clone().requires_grad_()
        return torch.autograd.grad(objective(x), x)[0].norm()

    without = slope(disagreement(0, 1, teachers.member))
    assert slope(disagreement(0, 1, teachers.member, student.member)) < 1e-12 * without


def test_pairs_are_fixed_or_drawn(network, images, teachers):
    def seen(method):
        return [shown(method, images, teachers, network, seed)[0] for seed in range(8)]

    fixed, drawn = seen(Perturbation(pair=[2, 0])), seen(Perturbation())
    assert all(torch.equal(fixed[0], other) for other in fixed)
    assert any(not torch.equal(drawn[0], other) for other in drawn)
    assert not torch.equal(fixed[0], shown(Perturbation(pair=[0, 2]), images, teachers, network)[0])
    with pytest.raises(ValueError, match="lack"):
        shown(Perturbation(pair=[0, 4]), images, teachers, network)


def test_teachers_match_what_the_student_is_shown(network, teachers):
    """The perturbed images replace the clean ones for targets too."""
    trainer = make_trainer(Perturbation(step=20.0), teachers)
    training = trainer.start(network)
    images = to_unit(trainer.data.train.images[:4]).double()
    moved, _ = trainer.method.inputs(images, LABELS, teachers, network, streams.generator(0, "perturbation", 0))
    expected = trainer.method.loss(moved, LABELS, teachers, copy.deepcopy(network).train())["loss"]
    training.student.train()
    torch.testing.assert_close(trainer.take_step(training, Batch(images, LABELS))["loss"], expected)


# All of them


@pytest.mark.parametrize("name", {**methods.VARIANTS, **methods.BASELINES})
@pytest.mark.parametrize(
    "options", [{"alpha": 2.0}, {"temperature": 0.0}, {"factors": "?"}, {"decay": "?"}, {"merge": "?"}]
)
def test_nonsense_is_refused(name, options):
    cls = methods.load(name)
    if set(options) <= set(cls.__dataclass_fields__):
        with pytest.raises(ValueError, match=next(iter(options))):
            cls(**options)
