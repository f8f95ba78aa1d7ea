"""On a GPU no step waits for the device, whatever the method, the recipe and the network, and its numbers are the CPU's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import VisionTransformer

import methods
from harness.training.capture import is_capturable
from harness.training.data import Split, train_batches
from harness.training.data.batches import DeviceBatches
from harness.training.data.files import FileImages
from harness.training.inference import reestimate_batch_norm
from methods.kd import KD
from methods.method import Method
from tests.pretended_gpu import SEND, launches, pretending, waiting
from tests.trial import CHANNELS, CLASSES, SIZE, Outcome, Trial, make_noise, pretend

ALL = ("supervised", *methods.VARIANTS)  # tried with everything
BASELINES = [name for name in methods.BASELINES if name not in ALL and methods.load(name).trained]
RECIPES = {
    "plain": {},
    "bfloat16": {"precision": "bfloat16"},
    "not channels last": {"channels_last": False},
    "accumulate": {"accumulate": 2},
    "ema": {"average": "ema"},
    "swa": {"average": "swa", "swa_start": 0.0, "epochs": 2},
    "mixup": {"mixup": 0.2},
    "label smoothing": {"label_smoothing": 0.1},
    "adamw": {"optimiser": "adamw"},
    "everything": {
        **{"precision": "bfloat16", "accumulate": 2, "average": "ema", "mixup": 0.2, "label_smoothing": 0.1},
        "optimiser": "adamw",
    },
}
DATA = {"randaugment": {"randaugment": 2}, "cutout": {"cutout": 4}}
OPTIONS = {
    "kd": [{"alpha": 0.5}],
    "ensemble_kd": [{"alpha": 0.5}, {"average": "logits"}],
    "weight_averaging": [
        *({"alpha": 0.5}, {"factors": "normal"}, {"factors": "sign"}, {"decay": "none"}, {"merge": "outer"}),
        {"reestimate_bn": True},
    ],
    "perturbation": [{"keep_clean": True}, {"pair": [0, 2]}, {"average": "logits"}, {"step": 0.0}],
    "combined": [{"keep_clean": True}, {"pair": [0, 2]}, {"student_term": False}, {"merge": "outer"}],
}


def attend(seed: int) -> nn.Module:
    """A vision transformer as small as they come."""
    torch.manual_seed(seed)
    network = VisionTransformer(SIZE, 4, 1, 2, 8, 16, dropout=0.0, num_classes=CLASSES)
    nn.init.trunc_normal_(network.heads[0].weight, std=0.2)
    return network


def drop_out(seed: int) -> nn.Module:
    """A network whose layers draw: depth-wise convolutions, a group norm, dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(CHANNELS, 6, 3, bias=True), nn.GroupNorm(2, 6), nn.Hardswish(), nn.Conv2d(6, 6, 3, groups=6)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, CLASSES)),
    )


NETWORKS = {"attention": attend, "dropout": drop_out}
CAPTURED = {"capture": True, "epochs": 2, "steps_per_epoch": 5, "schedule": "linear"}


def make(name: str, **options) -> Method:
    return methods.load(name)(**options)


TRIALS = {
    **{f"{name}, {how}": Trial(make(name), recipe=recipe) for name in ALL for how, recipe in RECIPES.items()},
    **{f"{name}, {how}": Trial(make(name), data=data) for name in ALL for how, data in DATA.items()},
    **{
        f"{name}, {how}": Trial(make(name), recipe=RECIPES[how])
        for name in BASELINES
        for how in ("plain", "everything")
    },
    **{
        f"{name}, captured": Trial(make(name), recipe=CAPTURED, members=2)
        for name in BASELINES
        if is_capturable(make(name))
    },
    **{f"{name}, views": Trial(make(name), views=True) for name in ("kd", "ensemble_kd", "weight_averaging")},
    **{f"{name}, {options}": Trial(make(name, **options)) for name, each in OPTIONS.items() for options in each},
    **{f"{name}, captured": Trial(make(name), recipe=CAPTURED, members=2) for name in ALL},
    **{
        f"combined, {how}, captured": Trial(make("combined"), recipe={**recipe, **CAPTURED}, members=2)
        for how, recipe in RECIPES.items()
        if how in ("ema", "adamw", "everything")
    },
    **{
        f"combined, {how}, resumed": Trial(make("combined"), recipe={**recipe, **CAPTURED}, members=2, resumed=True)
        for how, recipe in RECIPES.items()
        if how in ("ema", "everything")
    },
    "combined, tf32": Trial(make("combined"), recipe={"precision": "tf32"}),
    "kd, views, captured": Trial(make("kd"), recipe=CAPTURED, views=True),
    "supervised, dropout, captured": Trial(make("supervised"), drop_out, CAPTURED),
    **{
        f"{name}, {how}": Trial(make(name), network=network)
        for name in ("supervised", "combined")
        for how, network in NETWORKS.items()
    },
}


def check(outcome: Outcome) -> None:
    """Fail where a step waits, with the lines that do."""
    found = Counter(str(event) for step in outcome.steps for event in waiting(step))
    assert not found, "a step waits for the device:\n" + "\n".join(f"{n} x {what}" for what, n in found.items())


@pytest.mark.parametrize("name", TRIALS)
def test_no_step_waits_and_its_numbers_are_the_cpus(name):
    trial = TRIALS[name]
    found = pretend(trial)
    check(found)
    if trial.recipe.get("capture"):
        assert found.graphs["graphs"] > 0 and found.graphs["failure"] is None
        assert any(launches(step)["graph"] for step in found.steps)
    else:
        assert all(len(step) > 20 for step in found.steps)  # they were seen
    expected = replace(trial, resumed=False, recipe={"channels_last": True, **trial.recipe}).run(
        "cpu"
    )  # what GPUs choose
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_the_device_is_waited_for_once():
    first = pretend(Trial(make("kd"))).first
    (wait,) = waiting(first)
    assert str(wait).startswith("wait: synchronize at harness/training/meter.py")


def test_nothing_waits_where_batch_norms_are_re_estimated():
    """By one batch after the other, with the CPU's statistics."""
    trial, found = Trial(make("supervised")), []
    for device in ("cpu", "cuda"):
        with pretending() as gpu:
            network, split = trial.build(0).to(device), make_noise().to(device).train
            gpu.events.clear()
            reestimate_batch_norm(network, split, 10)
            assert not waiting(gpu.events)
            found.append({name: buffer.cpu() for name, buffer in network.named_buffers()})
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_in_files_are_sent(tmp_path, workers):
    files = [tmp_path / f"{k}.png" for k in range(12)]
    for k, file in enumerate(files):
        Image.new("RGB", (SIZE, SIZE), (20 * k, 0, 0)).save(file)
    split = Split(FileImages(files, SIZE, workers), torch.arange(12))
    with pretending() as gpu:
        batches = iter(train_batches(split.to("cuda"), 0, False, 0, 4).epoch(0))
        seen = [next(batches)]
        gpu.events.clear()
        seen += batches
        assert not waiting(gpu.events)
        assert sum(event.kind == SEND for event in gpu.events) == 2
        for batch in seen:
            red = (batch.images[:, 0].amax((1, 2)) * 255).round().long().cpu()
            assert red.tolist() == (20 * batch.labels).tolist()


# Sinners ------------------------------------------------------------------------------------------------------


@dataclass
class Looks(KD):
    """Reads its loss to the host."""

    def loss(self, images, labels, teachers, student):
        parts = super().loss(images, labels, teachers, student)
        assert parts["loss"].item() > 0
        return parts


@dataclass
class Makes(KD):
    """Makes a tensor on the device out of a number of the host."""

    def target(self, images, teachers):
        return super().target(images, teachers) * torch.tensor([1.0], device=images.device)


@dataclass
class Masks(KD):
    """Leaves out images by a mask."""

    def inputs(self, images, labels, teachers, student, generator):
        kept = labels > 0
        return images[kept], labels[kept]


@dataclass
class Draws(KD):
    """Draws noise on the host and copies it."""

    def inputs(self, images, labels, teachers, student, generator):
        return images + torch.rand(images.shape, generator=generator).to(images.device), labels


@dataclass
class Waits(KD):
    """Waits for the device."""

    def target(self, images, teachers):
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        return super().target(images, teachers)


@dataclass
class Forgets(KD):
    """Forgets to move what it adds."""

    def inputs(self, images, labels, teachers, student, generator):
        return images + torch.rand(images.shape, generator=generator), labels


SINNERS = {
    Looks: "to host: _local_scalar_dense at tests/training/test_gpu_steps.py",
    Makes: "to device: _to_copy at tests/training/test_gpu_steps.py",
    Masks: "wait: index by a mask at tests/training/test_gpu_steps.py",
    Draws: "to device: _to_copy at tests/training/test_gpu_steps.py",
    Waits: "wait: synchronize at tests/training/test_gpu_steps.py",
}


@pytest.mark.parametrize("sinner", SINNERS)
def test_a_method_that_waits_is_found(sinner):
    with pytest.raises(AssertionError) as found:
        check(pretend(Trial(sinner())))
    assert SINNERS[sinner] in str(found.value)


def test_a_method_that_mixes_devices_is_found():
    with pytest.raises(RuntimeError, match="add: expected all on one device"):
        pretend(Trial(Forgets()))


def test_batches_that_wait_are_found(monkeypatch):
    honest = DeviceBatches.epoch

    def look(self, *args):
        for batch in honest(self, *args):
            assert len(batch.labels.tolist())
            yield batch

    monkeypatch.setattr(DeviceBatches, "epoch", look)
    with pytest.raises(AssertionError, match=r"to host: cpu at tests/training/test_gpu_steps\.py"):
        check(pretend(Trial(make("supervised"))))
