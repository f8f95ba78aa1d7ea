"""RandAugment, CutOut, MixUp: each operation beside torchvision's, what is drawn, what a training is shown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from harness import streams
from harness.config import ConfigError
from harness.config.options import Data
from harness.training.data import Split, load, randaugment
from harness.training.data.batches import Batch, DeviceBatches
from harness.training.data.changes import ChangedBatches, image_changes
from harness.training.data.cutout import CutOut
from harness.training.data.mixup import MixUp
from harness.training.data.randaugment import ENHANCEMENT, MAGNITUDES, OPERATIONS, SHEAR, TRANSLATION, RandAugment
from tests.pretended_gpu import SEND, pretending, waiting
from tests.running import configure, make_trainer, run

HEIGHT, WIDTH = 32, 40


@pytest.fixture(scope="module")
def pictures():
    """Smooth colour pictures [4, 3, 32, 40] uint8, one of them of a single level."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 8, 8, generator=draw)
    images = (torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1) * 255).byte()
    images[3] = 77
    return images


def affine(images, translate=(0, 0), shear=(0.0, 0.0)):
    options = {"angle": 0.0, "scale": 1.0, "interpolation": InterpolationMode.BILINEAR, "center": [0, 0]}
    return TF.affine(images, translate=list(translate), shear=list(shear), **options)


def theirs(name, images, strength):
    factor, shear = 1 + ENHANCEMENT * strength, math.degrees(math.atan(SHEAR * strength))
    return {
        "identity": lambda: images,
        "shear_x": lambda: affine(images, shear=(shear, 0.0)),
        "shear_y": lambda: affine(images, shear=(0.0, shear)),
        "translate_x": lambda: affine(images, translate=(round(-TRANSLATION * WIDTH * strength), 0)),
        "translate_y": lambda: affine(images, translate=(0, round(-TRANSLATION * HEIGHT * strength))),
        "rotate": lambda: TF.rotate(images, 30 * strength, interpolation=InterpolationMode.BILINEAR),
        "brightness": lambda: TF.adjust_brightness(images, factor),
        "colour": lambda: TF.adjust_saturation(images, factor),
        "contrast": lambda: TF.adjust_contrast(images, factor),
        "sharpness": lambda: TF.adjust_sharpness(images, factor),
        "posterize": lambda: TF.posterize(images, 8 - round(4 * abs(strength))),
        "solarize": lambda: TF.solarize(images, 255 * (1 - abs(strength))),
        "autocontrast": lambda: TF.autocontrast(images),
        "equalize": lambda: TF.equalize(images),
    }[name]()


def through(images, operations, strength, signs):
    """Images [B, C, H, W] in [0, 1], each through the operation of its name, at a strength of its sign."""
    change = RandAugment(1, MAGNITUDES * strength, images.shape[-2:], images.device)
    drawn = torch.tensor([OPERATIONS.index(name) for name in operations])
    numbers, rows = drawn.sort(stable=True)
    keys = 2 * numbers + (torch.tensor(signs) > 0)[rows]
    sizes = torch.bincount(drawn, minlength=len(OPERATIONS)).tolist()
    found, _ = change(images, None, (torch.stack((rows, rows.argsort())), keys[None], [sizes]))
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("strength", [0.3, -0.7, 1.0, 0.0])
def test_operations_are_torchvisions(pictures, operation, strength):
    """To the rounding of levels, which torchvision does at every step; translations by whole pixels."""
    if operation.startswith("translate"):
        side = {"translate_x": WIDTH, "translate_y": HEIGHT}[operation]
        strength = round(strength * 10) / (TRANSLATION * side)
    expected = theirs(operation, pictures, strength).float()
    found = through(pictures / 255, [operation] * 4, abs(strength), [strength] * 4)
    assert ((found * 255 - expected).abs() <= 2.01).all()
    assert (found * 255 - expected).abs().mean() < 1
    assert found.min() >= 0 and found.max() <= 1


def test_images_of_a_batch_do_not_touch_each_other(pictures):
    """Every operation at both signs, each of another picture: the same together as alone."""
    operations, signs = [*OPERATIONS, *OPERATIONS[::-1]], [1, -1] * len(OPERATIONS)
    images = pictures[torch.arange(len(operations)) % 3] / 300  # room for autocontrast
    together = through(images, operations, 0.4, signs)
    for k, (operation, sign) in enumerate(zip(operations, signs, strict=True)):
        alone = through(images[k : k + 1], [operation], 0.4, [sign])
        assert torch.allclose(together[k], alone[0], atol=1e-5), operation
    moved = {k for k in range(len(operations)) if not torch.equal(together[k], images[k])}
    assert {operations[k] for k in moved} == set(OPERATIONS) - {"identity"}


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 2, 2)])
def test_operations_take_small_and_grey_images(size):
    images = torch.rand(len(OPERATIONS), *size, generator=torch.Generator().manual_seed(0))
    found = through(images, OPERATIONS, 0.5, [1] * len(OPERATIONS))
    assert found.shape == images.shape and found.isfinite().all()


def test_images_go_through_the_operations_drawn_for_them(pictures):
    """What is drawn, by its definition: operations, then signs in the order of the images sorted by operation."""
    images, size = pictures[torch.arange(40) % 4] / 255, (HEIGHT, WIDTH)
    change = RandAugment(2, 15, size, images.device)
    draws = change.draw(torch.Generator().manual_seed(1), 3, 40, images.device)
    stream = torch.Generator().manual_seed(1)
    drawn = torch.randint(14, (3, 2, 40), generator=stream)
    signs = 2 * torch.randint(2, (3, 2, 40), generator=stream) - 1
    for step in range(3):
        expected = images
        for numbers, of_sorted in zip(drawn[step], signs[step], strict=True):
            layer = torch.empty_like(expected)
            for row, sign in zip(numbers.argsort(stable=True).tolist(), of_sorted.tolist(), strict=True):
                (layer[row],) = through(expected[row : row + 1], [OPERATIONS[numbers[row]]], 0.5, [sign])
            expected = layer
        found = change(images, torch.zeros(40), draws[step])[0]
        # A rounding before a threshold or a level's edge may move a few pixels by a level or more.
        assert ((found - expected).abs() > 1e-5).float().mean() < 0.01
        assert (found - expected).abs().mean() < 1e-3
    assert (drawn.flatten().bincount() > 0).all()


def test_a_round_is_few_launches(pictures):
    """Of kernels on a device: every operator that makes or changes values, whatever the batch."""
    images = pictures[torch.arange(64) % 4] / 255
    change = RandAugment(2, 9, (HEIGHT, WIDTH), images.device)
    (draws,) = change.draw(torch.Generator().manual_seed(0), 1, 64, images.device)
    with Launches() as launches:
        change(images, None, draws)
    assert all(all(sizes) for sizes in draws[2]), "every operation takes part"
    assert launches.count <= 2 * 55


class Launches(TorchDispatchMode):
    """Counts the operators that would launch a kernel: all but those that only look at memory in another way, or reserve
    it.
    """

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        found = function(*arguments, **(options or {}))
        reserves = "empty" in function.name()
        self.count += not (function.is_view or reserves or function.name() == "aten::_unsafe_view")
        return found


def test_cutout_hides_one_square():
    images = torch.rand(200, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    change = CutOut(4, (12, 10), torch.tensor([0.1, 0.2, 0.3]))
    (draws,) = change.draw(torch.Generator().manual_seed(1), 1, 200, images.device)
    found, _ = change(images, torch.zeros(200), draws)
    hidden = (found != images).all(1)
    assert torch.equal(found.movedim(1, -1)[hidden].unique(dim=0), torch.tensor([[0.1, 0.2, 0.3]]))
    assert torch.equal(found.movedim(1, -1)[~hidden], images.movedim(1, -1)[~hidden])
    counts = hidden.flatten(1).sum(1)
    assert counts.max() == 16 and counts.min() >= 4  # a corner keeps at least 2x2
    assert (counts == 16).float().mean() > 0.4
    assert hidden.any(0).all()


def test_mixup_mixes_images_and_labels_alike():
    classes = 5
    labels = torch.arange(20) % classes
    images = torch.nn.functional.one_hot(labels, classes).float().view(20, classes, 1, 1).expand(-1, -1, 3, 3)
    change = MixUp(0.4, classes)
    draws = change.draw(torch.Generator().manual_seed(0), 50, 20, images.device)
    for draw in draws:
        mixed, soft = change(images, labels, draw)
        assert torch.allclose(soft.sum(1), torch.ones(20))
        assert torch.allclose(mixed[:, :, 1, 1], soft, atol=1e-6)
    lam = torch.stack([lam for lam, _ in draws])
    assert 0 <= lam.min() < 0.1 and 0.9 < lam.max() <= 1
    assert len({tuple(order.tolist()) for _, order in draws}) == 50


def test_no_batch_waits_for_the_device(digits):
    """On a pretended GPU, with what an epoch draws: the batches of the CPU."""
    on_cpu = list(changed(digits).epoch(0))
    with pretending() as gpu:
        batches = changed(replace(digits, train=digits.train.pad(1)).to("cuda"))
        gpu.events.clear()
        found = list(batches.epoch(0))
        assert not waiting(gpu.events)
        assert sum(event.kind == SEND for event in gpu.events) == 5  # views, and what the changes draw
        for ours, theirs in zip(found, on_cpu, strict=True):
            torch.testing.assert_close(ours.images.cpu(), theirs.images)
            torch.testing.assert_close(ours.labels.cpu(), theirs.labels)


# In a training ----------------------------------------------------------------------------------------------------

OPTIONS = {"randaugment": 2, "magnitude": 12, "cutout": 3}


@pytest.fixture(scope="module")
def digits():
    return load(vars(Data()))


def changed(digits, seed=0, steps=None):
    config = vars(Data()) | OPTIONS
    changes = [*image_changes(config, digits), MixUp(1.0, 10)]
    return ChangedBatches(DeviceBatches(digits.train, 1, False, seed, 50, steps), changes, seed)


def test_batches_resume_in_mid_epoch(digits):
    whole = list(changed(digits).epoch(3))
    assert len(whole) == 10
    for skip in (1, 7):
        rest = list(changed(digits).epoch(3, skip))
        assert len(rest) == 10 - skip
        for a, b in zip(whole[skip:], rest, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


def test_seeds_and_epochs_differ_and_views_are_gone(digits):
    first, again, other = (
        next(changed(digits).epoch(0)),
        next(changed(digits).epoch(1)),
        next(changed(digits, 1).epoch(0)),
    )
    assert not torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    assert first.views is None
    plain = next(DeviceBatches(digits.train, 1, False, 0, 50).epoch(0))
    assert not torch.equal(plain.images, first.images)


def test_changes_draw_from_streams_of_their_own(digits):
    """One change more leaves what the others draw as it was."""
    source = DeviceBatches(digits.train, 1, False, 0, 50)
    cutout = CutOut(3, (8, 8), torch.tensor(digits.mean))
    alone = next(ChangedBatches(source, [cutout], 0).epoch(2))
    draws = cutout.draw(streams.generator(0, "cutout", 2), source.steps, 50, source.device)
    expected, _ = cutout(*(lambda b: (b.images, b.labels))(next(source.epoch(2))), draws[0])
    assert torch.equal(alone.images, expected)
    assert {change.stream for change in (RandAugment, CutOut, MixUp)} <= set(streams.PURPOSES)


def test_runs_with_every_change(tmp_path):
    options = {f"data__{name}": value for name, value in OPTIONS.items()}
    for method in ("kd", "combined"):
        record = run(tmp_path, method, train__mixup=0.8, train__label_smoothing=0.1, train__accumulate=2, **options)
        assert record["status"] == "done"


def test_smoothed_mixed_labels_sum_to_one(digits):

    tiny = Split(digits.train.images[:24], digits.train.labels[:24] % 3)
    data = digits.__class__(3, digits.mean, digits.sd, tiny, tiny, tiny)
    trainer = make_trainer(data, mixup=1.0, label_smoothing=0.2)
    batch: Batch = next(trainer.batches.epoch(0))
    smooth = trainer.smooth(batch.labels)
    assert torch.allclose(smooth.sum(1), torch.ones(8))
    assert smooth.min() >= 0.2 / 3 - 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data__cutout": -1}, "data.cutout must not be negative"),
        ({"data__randaugment": -1}, "data.randaugment must not be negative"),
        ({"data__magnitude": 31}, "data.magnitude must lie in [0, 30], not 31"),
        ({"train__mixup": -0.1}, "train.mixup must not be negative"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError) as caught:
        configure(tmp_path, **options)
    assert message in str(caught.value)


def test_no_more_than_the_strongest_is_allowed():
    assert randaugment.MAGNITUDES == 30  # as harness/config.py says without importing torch
