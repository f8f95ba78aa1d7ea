"""The comparison itself: it reads files of any shape, and passes over nothing."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from harness.training.networks import Normalise
from harness.training.networks.preresnet import PreResNet
from methods.latent_be import convert
from tests.reference import layout
from tests.reference.__main__ import main
from tests.reference.check import check
from tests.reference.engine import check_engine
from tests.reference.file import ReferenceFile

SHAPES = [  # blocks, widths, classes, channels, stem, members, image size
    pytest.param((2, (5, 5, 6), 3, 1, 5, 2, 8), id="deep"),
    pytest.param((1, (6, 4, 9), 7, 3, 2, 3, 12), id="uneven"),
]
CASES = {"plain": "student", "kd_a0.3_T2": "student", "latentbe": "be", "tdivsdiv_a0.5_T3_pair10": "be"}


class Recording(ReferenceFile):
    """A file that takes over what is compared with it, where it has the key."""

    def compare(self, name, ours, tolerance=None):
        arrays = {f"{name}/{path}": a for path, a in ours.items()} if isinstance(ours, dict) else {name: ours}
        self.arrays.update((key, np.asarray(array)) for key, array in arrays.items() if key in self.arrays)


def random_network(shape, generator):
    blocks, widths, classes, channels, stem, *_ = shape
    pixels = Normalise([0.5] * channels, [0.25] * channels)
    body = PreResNet(blocks, widths, classes, channels, stem)
    network = nn.Sequential(OrderedDict(normalise=pixels, network=body)).double()
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point() and tensor.numel() > channels:
            tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    return network


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture(scope="module")
def arrays(shape):
    """A file's keys, with numbers of this project's own: they test the reading, not the methods."""
    *_, classes, channels, _, members, size = shape
    generator = torch.Generator().manual_seed(0)
    random = np.random.default_rng(0)
    networks = {f"teacher{m}": random_network(shape, generator) for m in range(members)}
    networks["student"] = random_network(shape, generator)
    networks["be"] = convert(random_network(shape, generator), members, "normal", 0.2, generator)
    found = {
        "in/images_uint8": random.integers(0, 256, (5, size, size, channels), dtype=np.uint8),
        "in/labels": random.integers(0, classes, 5).astype(np.int32),
        "in/global_step": np.array(30000),
        "in/weight_decay": np.array(1e-3),
        "in/M": np.array(members),
    }
    for name, network in networks.items():
        for path, array in layout.values_to_file(network).items():
            found[f"{name}/params/{path}"] = array
            if name in ("student", "be"):
                found[f"in/momentum_{name}/{path}"] = 0.01 * random.normal(size=array.shape)
        for path, array in layout.to_file(layout.statistics(network)).items():
            found[f"{name}/batch_stats/{path}"] = array
        pixels = layout.unwrap(network).normalise
        found[f"{name}/image_stats/m"] = pixels.mean.numpy().ravel()
        found[f"{name}/image_stats/s"] = pixels.sd.numpy().ravel()

    def expect(*keys):
        found.update((key, np.array(0.0)) for key in keys)

    expect(*(f"fwd/teacher{m}/eval/logits" for m in range(members)))
    for name in ("student", "be"):
        expect(*(f"fwd/{name}/{mode}/logits" for mode in ("eval", "train")))
        expect(*(f"fwd/{name}/train/new_batch_stats/{p}" for p in layout.statistics(networks[name])))
    expect("fwd/be_merged_stepval/eval/logits", "nonofficial/be_merged_outer/eval/logits")
    for case, name in CASES.items():
        found[f"step/{case}/metrics/lr"] = np.float32(0.05 * (1 + np.cos(np.pi * (30000 - 1755) / 68445)))
        expect(f"step/{case}/metrics/loss", f"step/{case}/metrics/loss_wd")
        for kind in ("grads", "gradnorm", "new_params", "newparamnorm", "new_momentum"):
            expect(*(f"step/{case}/{kind}/{path}" for path in layout.parameters(networks[name])))
    expect("step/tdivsdiv_a0.5_T3_pair10/perturb/images", "step/tdivsdiv_a0.5_T3_pair10/perturb/raw_grad")
    for k, step in enumerate([1, 900]):
        found[f"traj/{k}/pair"] = np.array([k, 1 - k])
        found[f"traj/{k}/metrics/lr"] = np.float32(0.1 * step / 1755)
        expect(f"traj/{k}/metrics/loss")
    expect(*(f"traj/final_params/{path}" for path in layout.parameters(networks["be"])))
    file = Recording(None, found, found, 1e-9)
    check_engine(file)
    assert all(result.ok for result in file.results), file.results
    return found


def out(path):
    return [result.name for result in check(path)[1] if not result.ok]


def test_reads_any_shape_and_precision(arrays, tmp_path, capsys):
    np.savez(tmp_path / "other_float64.npz", **arrays)
    assert main([str(tmp_path / "other_float64.npz")]) == 0
    assert "all ok" in capsys.readouterr().out

    given = ("student/", "be/", "teacher", "in/momentum")
    single = {
        key: array.astype(np.float32) if array.dtype == np.float64 and not key.startswith("in/") else array
        for key, array in arrays.items()
        if not key.startswith(given) and "/grads/" not in key
    }
    np.savez(tmp_path / "other_float32.npz", **single)
    results = check(tmp_path / "other_float32.npz")[1]
    assert [str(result) for result in results if not result.ok] == []
    assert {"step/latentbe/gradnorm", "step/plain/newparamnorm"} <= {result.name for result in results}


@pytest.mark.parametrize("shape", SHAPES[1:], indirect=True, scope="module")
def test_passes_over_nothing(arrays, tmp_path):
    path = tmp_path / "changed.npz"

    def changed(key, array):
        np.savez(path, **arrays | {key: array})
        return out(path)

    key = next(key for key in arrays if key.startswith("step/latentbe/grads/") and key.endswith("/r"))
    assert changed(key, arrays[key] * (1 + 1e-7)) == ["step/latentbe/grads"]
    assert changed("step/plain/metrics/novelty", np.array(1.0)) == ["step/plain/metrics/novelty"]
    assert changed("step/novelty/metrics/loss", np.array(1.0)) == [
        "step/novelty",
        "step/novelty/metrics/loss",
    ]
    assert changed("step/plain/metrics/loss", np.array(np.nan)) == ["step/plain/metrics/loss"]
    assert changed("step/plain/metrics/lr", np.float32(0.05))[0] == "step/plain/metrics/lr"
    assert main([str(path)]) == 1
