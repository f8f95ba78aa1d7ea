"""Every network of the table in harness/training/networks/README.md: conversion to members, one training step, merge, export."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from harness.config import ConfigError
from harness.config.options import TRAIN
from harness.run.names import check_name
from harness.training import networks
from harness.training.data import Dataset, Split
from harness.training.data.batches import Batch
from harness.training.trainer import Trainer
from methods.combined import Combined
from methods.latent_be import convert, rank_one_layers
from methods.method import Teachers

LARGE = (
    "resnet34",
    "resnet50",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "wrn28_4",
    "wrn28_10",
)
ALL = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in networks.EXAMPLES]
MEAN, SD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.2)


def build(name: str, seed: int = 0, size: int = 32, classes: int = 5, mean=MEAN, sd=SD) -> nn.Module:
    return networks.build(name, classes, mean, sd, torch.Generator().manual_seed(seed), size)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def awake(network: nn.Module) -> nn.Module:
    """The network without the zeros of its start, past which nothing flows back: ViT's head, last norms of branches."""
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    if not head.weight.any():
        nn.init.trunc_normal_(head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d) and not norm.weight.any():
            nn.init.ones_(norm.weight)
    return network


@pytest.mark.parametrize("name", ALL)
def test_convert_train_merge_export(name):
    size = 16 if name == "wrn28_10" else 64 if name.startswith("timm") else 32
    plain, *others = (awake(build(name, seed, size)) for seed in range(3))
    images = torch.randint(256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    split = Split(images, torch.arange(4) % 5)
    data = Dataset(5, MEAN, SD, split, split, split)
    recipe = asdict(TRAIN["digits"]) | {"batch_size": 4, "warmup_epochs": 0}
    teachers = Teachers(others)
    trainer = Trainer(Combined(), data, teachers, recipe, padding=0, flip=False, seed=0)
    training = trainer.start(plain)
    student, unit = training.student, images / 255

    # At the start the members are equal, and their merged network is the plain one.
    with torch.no_grad():
        student.eval()
        expected = plain.eval()(unit)
        members = student(unit)
        merged = student.merge()
        scale = expected.abs().max()
        for logits in (*members, student.member(1)(unit), merged(unit)):
            assert torch.allclose(logits, expected, atol=float(1e-4 * scale))

    student.train()
    parts = trainer.take_step(training, Batch(unit, split.labels))
    assert torch.isfinite(parts["loss"])
    layers = rank_one_layers(student.network)
    assert len(layers) == sum(isinstance(m, nn.Conv2d | nn.Linear | nn.MultiheadAttention) for m in plain.modules())
    moved = [layer for layer in layers if not torch.equal(layer.ds[0], layer.ds[1])]
    assert len(moved) >= 0.9 * len(layers), "only their teachers pull members apart, in every layer"

    merged = trainer.deploy(student)
    assert {key: type(m) for key, m in merged.named_modules()} == {key: type(m) for key, m in plain.named_modules()}
    assert {k: v.shape for k, v in merged.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert count(merged) == count(plain)
    read = build(name, 3, size)
    read.load_state_dict(load(save({key: value.contiguous() for key, value in merged.state_dict().items()})))
    with torch.no_grad():
        assert torch.equal(read.eval()(unit), merged(unit))


TIMM = ("resnet10t", "mobilenetv4_conv_small", "test_efficientnet", "test_convnext", "test_vit")


@pytest.mark.parametrize("name", TIMM)
def test_timm_converts_trains_merges_and_exports(name):
    pytest.importorskip("timm")
    test_convert_train_merge_export(f"timm/{name}")


def test_timms_weights_come_from_the_stream():
    pytest.importorskip("timm")
    test_initial_weights_come_from_the_stream("timm/test_resnet")


def test_the_table_ticks_every_network():
    table = (Path(networks.__file__).parent / "README.md").read_text()
    ticked = re.findall(r"^\| `(\w+)`.*\| yes \| yes \| yes \|$", table, re.M)
    assert sorted(ticked) == sorted(networks.EXAMPLES)


SMALL = [name for name in networks.EXAMPLES if name not in LARGE]


@pytest.mark.parametrize("name", SMALL)
def test_initial_weights_come_from_the_stream(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = build(name, 0), build(name, 0), build(name, 1)
    if name in networks.zoo.FAMILIES:
        assert torch.equal(torch.get_rng_state(), before), "the global stream is left alone"
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_small_images_keep_their_resolution_in_the_stem(name, size):
    network = build(name, size=size, mean=(0.5,), sd=(0.2,))  # grey
    with torch.no_grad():
        assert network.eval()(torch.rand(2, 1, size, size)).shape == (2, 5)
    stem = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert (stem.stride, stem.in_channels) == ((1, 1), 1)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11689512), ("mobilenet_v3_small", 2542856)])
def test_large_images_meet_the_published_network(name, parameters):
    network = build(name, size=224, classes=1000)
    assert count(network) == parameters
    stem = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert stem.stride == (2, 2)


@pytest.mark.parametrize(("size", "patch"), [(28, 4), (32, 4), (64, 8), (224, 16)])
def test_patches_of_transformers(size, patch):
    with torch.device("meta"):
        assert networks.zoo.vision_transformer("vit_b_16", 5, 3, size).conv_proj.kernel_size == (patch, patch)
        with pytest.raises(ValueError, match="cannot cut images of 30x30"):
            networks.zoo.vision_transformer("vit_b_16", 5, 3, 30)


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (32, 2), (64, 2), (224, 4)])
def test_patches_of_convnext(size, patch):
    with torch.device("meta"):
        network = networks.zoo.convnext("convnext_tiny", 5, 3, size)
    assert network.features[0][0].kernel_size == (patch, patch)


def test_timm_is_an_extra(monkeypatch):
    networks.check_own.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(networks.zoo, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the extra package timm: pip install timm"):
        check_name("model", "timm/resnet10t")


# Conversion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
def test_members_of_attention_are_independent_layers(batch_first):
    """Member m equals a plain attention layer with the factors multiplied into its weights, masks included."""
    torch.manual_seed(0)
    E, S, B, M = 8, 5, 3, 2
    plain = nn.MultiheadAttention(E, 2, batch_first=batch_first).eval()
    nn.init.normal_(plain.in_proj_bias)
    nn.init.normal_(plain.out_proj.bias)
    student = convert(plain, M, "normal", 0.5, torch.Generator().manual_seed(1))
    layer = student.network.eval()
    shape = (M * B, S, E) if batch_first else (S, M * B, E)
    x = torch.randn(shape)
    padding = torch.zeros(M * B, S, dtype=torch.bool)
    padding[:, -1] = True
    causal = torch.triu(torch.ones(S, S, dtype=torch.bool), 1)
    with torch.no_grad():
        y, weights = layer(x, x, x, key_padding_mask=padding, attn_mask=causal)
        rows = 0 if batch_first else 1
        for m in range(M):
            own = nn.MultiheadAttention(E, 2, batch_first=batch_first).eval()
            own.in_proj_weight.copy_(plain.in_proj_weight * layer.s[m][:, None] * layer.r[m])
            own.in_proj_bias.copy_(plain.in_proj_bias * layer.s[m])
            out = layer.out_proj
            own.out_proj.weight.copy_(plain.out_proj.weight * out.s[m][:, None] * out.r[m])
            own.out_proj.bias.copy_(plain.out_proj.bias * out.s[m])
            xm = x.chunk(M, rows)[m]
            ym, wm = own(xm, xm, xm, key_padding_mask=padding[:B], attn_mask=causal)
            assert torch.allclose(y.chunk(M, rows)[m], ym, atol=1e-6)
            assert torch.allclose(weights.chunk(M)[m], wm, atol=1e-6)


class Shared(nn.Module):
    """Plain parameters as vision transformers have them."""

    def __init__(self):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 3, 4))
        self.norm = nn.LayerNorm((3, 4))
        self.linear = nn.Linear(4, 2)


def test_tokens_embeddings_and_norms_are_shared():
    student = convert(Shared(), 2)
    assert [type(layer).__name__ for layer in rank_one_layers(student.network)] == ["RankOneLinear"]


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Parameter(torch.zeros(12, 4))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv1d(3, 4, 1), "its weight (4, 3, 1)"),
        (nn.Embedding(5, 3), "its weight (5, 3)"),
        (nn.LSTM(3, 4), "its weight_ih_l0 (16, 3)"),
        (Mixing(), "its qkv (12, 4)"),
        (nn.MultiheadAttention(4, 2, kdim=3), "not packed into one"),
        (nn.TransformerEncoderLayer(4, 2), "past their factors"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(layer, reason):
    network = nn.Sequential(nn.Linear(3, 3), layer)
    with pytest.raises(ValueError, match=re.escape(f"cannot convert 1 ({type(layer).__name__})")) as caught:
        convert(network, 2)
    assert reason in str(caught.value)
