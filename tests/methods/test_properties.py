"""What must hold for any network: of members, merging and perturbations."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.evaluation.evaluation import count_flops
from methods.combined import Combined
from methods.diversify import ascend, disagreement, draw_pair, take_step
from methods.ensemble_kd import EnsembleKD
from methods.latent_be import convert, rank_one_layers
from methods.losses import match, soften
from methods.perturbation import Perturbation
from methods.weight_averaging import WeightAveraging
from tests.arbitrary import images_for, networks, randomise, student_for, teachers_for

any_case = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 999)
sizes = st.integers(2, 4)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.fixture(scope="module")
def resnet18():
    network = randomise(torchvision.models.resnet18(num_classes=3).double(), 0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data /= module.weight[0].numel() ** 0.5
    network.channels = 3
    return network


def by_definition(student, m, images):
    """Member m as the paper writes it: every layer's input times r_m, its output (bias and all) times s_m."""
    network = student.network
    plain = student.merge()  # for its structure; weights and biases are the shared ones
    for layer, own in zip(leaves(plain), leaves(network), strict=True):
        r, s = own.r[m].detach(), own.s[m].detach()
        layer.weight, layer.bias = own.weight, own.bias
        if isinstance(layer, nn.Conv2d):
            r, s = r[:, None, None], s[:, None, None]
        layer.register_forward_pre_hook(lambda _, inputs, r=r: inputs[0] * r)
        layer.register_forward_hook(lambda _, inputs, output, s=s: output * s)
    return plain.eval()(images)


def leaves(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def flops(network, images):
    return count_flops(copy.deepcopy(network).float(), (255 * images).byte())


# Members


@any_case
@given(networks(), sizes, seeds)
def test_members_follow_their_definition(network, members, seed):
    student, images = student_for(network, members, seed).eval(), images_for(network, seed)
    together = student(images)
    for m in range(members):
        expected = by_definition(student, m, images)
        close(together[m], expected)
        close(student.member(m)(images), expected)


@any_case
@given(networks(), sizes, seeds, st.booleans())
def test_members_begin_as_the_plain_network(network, members, seed, training):
    student, images = convert(network, members), images_for(network, seed)
    expected = copy.deepcopy(network).train(training)(images)
    close(student.train(training)(images), expected.expand(members, -1, -1))


def test_members_of_a_resnet_follow_their_definition(resnet18):
    student, images = student_for(resnet18, 2, 0).eval(), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    together = student(images)
    for m in range(2):
        close(together[m], by_definition(student, m, images))
    close(convert(resnet18, 2).eval()(images)[1], resnet18.eval()(images))


@any_case
@given(networks(), sizes, seeds)
def test_first_gradient_of_shared_weights_is_that_of_ensemble_distillation(network, members, seed):
    teachers, images = teachers_for(network, members, seed), images_for(network, seed)
    labels = torch.arange(4) % 3
    plain, student = copy.deepcopy(network).train(), convert(network, members).train()
    EnsembleKD(alpha=0.7).loss(images, labels, teachers, plain)["loss"].backward()
    WeightAveraging(alpha=0.7).loss(images, labels, teachers, student)["loss"].backward()
    shared = dict(student.network.named_parameters())
    for name, parameter in plain.named_parameters():
        close(shared[name].grad, parameter.grad)


def test_layers_without_a_rule_are_named():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 3))
    with pytest.raises(ValueError, match=r"1 \(ConvTranspose2d\)"):
        convert(network, 2)


# Merging


@any_case
@given(networks(), sizes, seeds, st.sampled_from(["factors", "outer"]))
def test_equal_members_merge_into_themselves(network, members, seed, merge):
    student, images = student_for(network, members, seed).eval(), images_for(network, seed)
    for layer in rank_one_layers(student):
        for factor in (layer.dr, layer.ds):
            factor.data.copy_(factor.data[:1].expand_as(factor))
    close(student.merge(merge).eval()(images), student(images)[-1])


@any_case
@given(networks(), sizes, seeds, st.sampled_from(["factors", "outer"]))
def test_a_merged_network_is_of_the_original_kind(network, members, seed, merge):
    student = student_for(network, members, seed)
    before = copy.deepcopy(student.state_dict())
    merged, images = student.merge(merge), images_for(network, seed, 1)
    assert type(merged) is type(network)
    assert [type(module) for module in merged.modules()] == [type(module) for module in network.modules()]
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in merged.state_dict().items()} == shapes
    assert flops(merged, images) == flops(network, images)
    assert repr(merged) == repr(network)
    close(student.state_dict(), before)


@any_case
@given(networks(), sizes, seeds)
def test_converting_and_merging_loses_nothing(network, members, seed):
    merged = convert(network, members).merge()
    for name, tensor in merged.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
    again = student_for(merged, members, seed)
    first = student_for(network, members, seed)
    images = images_for(network, seed)
    assert torch.equal(again.eval()(images), first.eval()(images))


def test_a_merged_resnet_is_a_resnet(resnet18):
    student = student_for(resnet18, 3, 0)
    for merge in ("factors", "outer"):
        merged = student.merge(merge)
        assert type(merged) is torchvision.models.ResNet
        assert sum(p.numel() for p in merged.parameters()) == sum(p.numel() for p in resnet18.parameters())
        assert flops(merged, torch.rand(1, 3, 32, 32)) == flops(resnet18, torch.rand(1, 3, 32, 32))
    resnet18.load_state_dict(merged.state_dict())  # the same names, too


@any_case
@given(networks(), sizes, seeds)
def test_merging_averages(network, members, seed):
    student = student_for(network, members, seed)
    for merge in ("factors", "outer"):
        for layer, own in zip(leaves(student.merge(merge)), leaves(student.network), strict=True):
            weight = torch.zeros_like(own.weight)
            for o in range(weight.shape[0]):
                group = o // (weight.shape[0] // getattr(own, "groups", 1))
                for i in range(weight.shape[1]):
                    r, s = own.r[:, group * weight.shape[1] + i], own.s[:, o]
                    factor = (r * s).mean() if merge == "outer" else r.mean() * s.mean()
                    weight[o, i] = own.weight[o, i] * factor
            close(layer.weight, weight)
            if own.bias is not None:
                close(layer.bias, own.bias * own.s.mean(0))


# Perturbations


@any_case
@given(networks(), sizes, seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_a_step_has_the_size_of_one_grey_level_per_value(network, members, seed, step):
    teachers, images = teachers_for(network, members, seed), images_for(network, seed)
    moved = ascend(images, disagreement(0, 1, teachers.member), step) - images
    values = images[0].numel()
    close(moved.flatten(1).norm(dim=1), torch.full((4,), step * values**0.5 / 255, dtype=torch.float64))


@any_case
@given(networks(), seeds)
def test_images_stay_in_range_and_zero_gradients_leave_them(network, seed):
    images = images_for(network, seed).round()  # black and white
    gradient = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradient[0] = 0
    moved = take_step(images, gradient, 1.0)
    assert moved.min() >= 0 and moved.max() <= 1
    assert torch.equal(moved[0], images[0])
    assert (moved[1:] != images[1:]).flatten(1).any(1).all()
    tiny = take_step(images, gradient * 1e-200, 1.0)
    close(tiny, moved)


def test_indifferent_teachers_leave_the_images():
    network = randomise(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double(), 0)
    network.channels = 1
    teachers, images = teachers_for(network, 2, 0), images_for(network, 0)
    for teacher in teachers.networks:
        teacher[1].weight.zero_()
    shown, _ = Perturbation().inputs(images, torch.zeros(4), teachers, network, torch.Generator())
    assert torch.equal(shown, images)


def all_members_gradient(pair, teachers, student, images):
    """The gradient with every member run forwards and backwards, as the official code has it."""
    i, j = pair
    images = images.clone().requires_grad_()
    logits = torch.stack([teacher(images) for teacher in teachers.networks])
    members = student(images)
    value = match(logits[i], soften(logits[j], 1).detach(), 1)
    value = value - match(members[i], soften(members[j], 1).detach(), 1)
    return torch.autograd.grad(value, images)[0]


@any_case
@given(networks(), sizes, seeds, st.data())
def test_the_pair_alone_gives_the_gradient_of_all_members(network, members, seed, data):
    teachers, images = teachers_for(network, members, seed), images_for(network, seed)
    student = student_for(network, members, seed)
    pair = data.draw(st.permutations(range(members)))[:2]
    expected = all_members_gradient(pair, teachers, copy.deepcopy(student).eval(), images)
    x = images.clone().requires_grad_()
    objective = disagreement(*pair, teachers.member, student.train().member)
    close(torch.autograd.grad(objective(x), x)[0], expected)
    shown, _ = Combined(pair=list(pair)).inputs(images, None, teachers, student, torch.Generator())
    close(shown, take_step(images, expected, 1.0))


@any_case
@given(networks(), seeds)
def test_the_pair_alone_matters(network, seed):
    teachers, images = teachers_for(network, 4, seed), images_for(network, seed)
    student = student_for(network, 4, seed).train()

    def shown():
        return Combined(pair=[3, 1]).inputs(images, None, teachers, student, torch.Generator())[0]

    before = shown()
    for m in (0, 2):
        randomise(teachers.networks[m], 1000)
        for layer in rank_one_layers(student):
            layer.dr.data[m] += 1
            layer.ds.data[m] -= 1
    assert torch.equal(shown(), before)
    randomise(teachers.networks[1], 1000)
    assert not torch.equal(shown(), before)


@any_case
@given(networks(), sizes, seeds)
def test_a_perturbation_leaves_no_trace(network, members, seed):
    teachers, images = teachers_for(network, members, seed), images_for(network, seed)
    student = student_for(network, members, seed).train()
    states = [student.state_dict(), *(teacher.state_dict() for teacher in teachers.networks)]
    before, original = copy.deepcopy(states), images.clone()
    modes = [module.training for module in student.modules()]
    random = torch.get_rng_state()
    stream = torch.Generator().manual_seed(seed)
    Combined().inputs(images, torch.zeros(4), teachers, student, stream)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(states, before, strict=True) for k in a)
    everything = [*student.parameters(), *(p for teacher in teachers.networks for p in teacher.parameters())]
    assert all(parameter.grad is None for parameter in everything)
    assert [module.training for module in student.modules()] == modes
    assert torch.equal(images, original) and not images.requires_grad
    close(student(images), copy.deepcopy(student).train()(images))  # all members again, not the pair's


@any_case
@given(st.integers(2, 6))
def test_pairs_are_uniform(members):
    generator = torch.Generator().manual_seed(0)
    count = 300 * members * (members - 1)
    drawn = torch.zeros(members, members)
    for _ in range(count):
        i, j = draw_pair(members, generator)
        drawn[i, j] += 1
    assert drawn.diagonal().sum() == 0
    others = drawn[~torch.eye(members, dtype=torch.bool)]
    assert ((others - 300).abs() < 6 * 300**0.5).all()
