"""Data sets: small files in the published formats, through the code that reads the real ones."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from harness import streams
from harness.config import ConfigError
from harness.config.options import DATA
from harness.run.data import load_images
from harness.runtime.console import Console
from harness.training.data import MODULES, Dataset, Split, cifar, digits, fashion_mnist, load, svhn, tiny_imagenet
from harness.training.data.archives import Archive
from harness.training.data.augmentation import Augmentation
from harness.training.data.batches import DeviceBatches
from harness.training.data.dataset import hold_out, subset
from tests import formats
from tests.formats import fails, load_small


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write one of the sets into tmp_path, and return the number of images to hold out."""

    def write_set(name: str) -> int:
        if name in cifar.READERS:
            formats.write_cifar(tmp_path, name, monkeypatch, train=300)
            return 100
        if name == "fashion_mnist":
            monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
            formats.write_fashion_mnist(tmp_path, monkeypatch)
        elif name == "svhn":
            formats.write_svhn(tmp_path, monkeypatch)
        elif name == "tiny_imagenet":
            formats.write_tiny_imagenet(tmp_path)
            return 8
        else:
            formats.write_folders(tmp_path)
            return 6
        return 20

    return write_set


def test_every_set_has_options_and_a_module():
    assert set(DATA) == set(MODULES)
    assert all(name == data.name for name, data in DATA.items())


@pytest.mark.parametrize(
    ("name", "classes", "shape", "sizes"),
    [
        ("cifar10", 10, (3, 32, 32), (200, 100, 100)),
        ("cifar100", 100, (3, 32, 32), (200, 100, 100)),
        ("fashion_mnist", 10, (1, 28, 28), (40, 20, 30)),
        ("svhn", 10, (3, 32, 32), (40, 20, 30)),
        ("tiny_imagenet", 4, (3, 64, 64), (16, 8, 12)),
        ("folder", 3, (3, 64, 64), (24, 6, 30)),
    ],
)
def test_formats(tmp_path, write, name, classes, shape, sizes):
    validation = write(name)
    data = load_small(name, tmp_path, validation=validation)
    assert data.classes == classes
    assert tuple(map(len, (data.train, data.validation, data.test))) == sizes
    assert data.train.images.shape[1:] == shape
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert len(data.mean) == len(data.sd) == shape[0]
    assert load_small(name, tmp_path, validation=validation).fingerprint() == data.fingerprint()


def test_the_split_of_the_digits_is_what_is_drawn_of_scikit_learns_images():
    images, labels = load_digits(return_X_y=True)
    train, validation = digits.draw(labels, 997, 300)
    mine = load(asdict(DATA["digits"]))
    for split, rows in ((mine.train, train), (mine.validation, validation)):
        assert np.array_equal(split.images[:, 0].flatten(1), np.rint(images[rows] * (255 / 16)))
        assert np.array_equal(split.labels, labels[rows])
    assert len(mine.test.labels) == 997


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_keeps_file_order(tmp_path, write, name):
    write(name)
    data = load_small(name, tmp_path, validation=100)
    expected = torch.from_numpy(formats.pixels(300, 32))
    assert torch.equal(data.train.images, expected[:200])
    assert torch.equal(data.validation.images, expected[200:])
    assert data.train.labels.tolist() == formats.cycle(300, data.classes)[:200].tolist()
    assert torch.equal(data.test.images, torch.from_numpy(formats.pixels(100, 32, seed=1)))


def test_svhn_label_10_is_the_digit_0(tmp_path, write):
    write("svhn")
    data = load_small("svhn", tmp_path, validation=20)
    assert data.train.labels.tolist() == formats.cycle(60, 10)[:40].tolist()
    assert torch.equal(data.train.images, torch.from_numpy(formats.pixels(60, 32)[:40]))


def test_tiny_imagenet_holds_out_the_last_of_every_class(tmp_path, write):
    write("tiny_imagenet")
    data = load_small("tiny_imagenet", tmp_path, validation=8)
    assert torch.bincount(data.validation.labels).tolist() == [2] * 4
    assert torch.bincount(data.test.labels).tolist() == [3] * 4
    expected = torch.from_numpy(formats.pixels(6, 64, seed=1)[4].astype(np.int16))
    difference = (data.validation.images[2].short() - expected).abs().float().mean()
    other = (data.validation.images[4].short() - expected).abs().float().mean()
    assert difference < 0.9 * other  # JPEG of noise is lossy, but still nearer to its own image


def test_tiny_imagenet_is_decoded_once(tmp_path, write, monkeypatch):
    write("tiny_imagenet")
    first = load_small("tiny_imagenet", tmp_path, validation=8)
    monkeypatch.setattr(tiny_imagenet, "read_images", None)
    assert load_small("tiny_imagenet", tmp_path, validation=8).fingerprint() == first.fingerprint()


def test_tiny_imagenet_from_its_zip(tmp_path, monkeypatch):
    folder = formats.write_tiny_imagenet(tmp_path / "build")
    path = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as file:
        for found in folder.rglob("*"):
            file.write(found, found.relative_to(tmp_path / "build"))
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", Archive(path.name, "", (formats.md5(path),)))
    assert len(load_small("tiny_imagenet", tmp_path, validation=8).train) == 16


def test_folder_with_its_own_validation_split(tmp_path):
    formats.write_folders(tmp_path, ("train", "val", "test"))
    data = load_small("folder", tmp_path, image_size=16)
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 30, 30)
    assert data.train.images.shape[2:] == (16, 16)


# What is missing or damaged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "tiny_imagenet", "fashion_mnist"])
def test_missing_data_say_the_command(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    assert f"`python -m harness.data {name} {tmp_path}`" in fails(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_archive_is_named_and_not_unpacked(tmp_path, monkeypatch):
    archive = formats.write_cifar(tmp_path, "cifar10", monkeypatch)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert f"{archive} is damaged: md5" in fails("cifar10", tmp_path)
    monkeypatch.setattr(cifar.CIFAR10, "tgz_md5", formats.md5(archive))  # the checksum right, the archive not whole
    assert f"{archive} cannot be unpacked" in fails("cifar10", tmp_path)
    assert not (tmp_path / cifar.CIFAR10.base_folder).exists()
    assert not list(tmp_path.glob(".unpacking*"))


def test_a_folder_in_an_archives_place_is_named(tmp_path):
    (tmp_path / "train_32x32.mat").mkdir()
    assert f"{tmp_path / 'train_32x32.mat'} cannot be read: Is a directory" in fails("svhn", tmp_path)


def test_a_damaged_member_is_named(tmp_path, monkeypatch):
    formats.write_cifar(tmp_path, "cifar10", monkeypatch)
    load_small("cifar10", tmp_path, validation=100)
    path = tmp_path / cifar.CIFAR10.base_folder / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} is damaged" in fails("cifar10", tmp_path, validation=100)
    path.unlink()
    assert f"{path} is missing" in fails("cifar10", tmp_path, validation=100)


def test_damaged_mat_and_idx_files_are_named(tmp_path, write, monkeypatch):
    write("svhn")
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:500])
    assert f"{path} is damaged" in fails("svhn", tmp_path, validation=20)
    listed = dict(svhn.SVHN.split_list)
    listed["train"] = [*listed["train"][:2], formats.md5(path)]
    monkeypatch.setattr(svhn.SVHN, "split_list", listed)
    assert f"{path} cannot be read" in fails("svhn", tmp_path, validation=20)
    path = tmp_path / "x.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match=f"{path} cannot be read"):
        fashion_mnist.read_idx(path)


def test_labels_out_of_range_and_missing_classes(tmp_path, monkeypatch):
    formats.write_svhn(tmp_path, monkeypatch, classes=12)
    assert "the train split of svhn has labels from 0 to 11, not from 0 to 9" in fails("svhn", tmp_path, validation=20)
    formats.write_svhn(tmp_path, monkeypatch, classes=7)
    assert "no image of 3 of 10 classes: 7, 8, 9" in fails("svhn", tmp_path, validation=20)


def test_unreadable_images_are_named_and_nothing_is_cached(tmp_path):
    folder = formats.write_tiny_imagenet(tmp_path)
    path = sorted((folder / "train").rglob("*.JPEG"))[5]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert f"{path} cannot be read as an image" in fails("tiny_imagenet", tmp_path, validation=8)
    assert not list(folder.glob("decoded*"))
    path.write_bytes(formats.jpeg(formats.pixels(1, 32)[0]))
    assert f"{path} is an image of 32x32, not of 64x64" in fails("tiny_imagenet", tmp_path, validation=8)
    path.write_bytes(whole)
    assert len(load_small("tiny_imagenet", tmp_path, validation=8).train) == 16


def test_bad_trees_are_named(tmp_path):
    folder = formats.write_tiny_imagenet(tmp_path)
    annotations = folder / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("n00000010", "n12345678", 1))
    assert f"{annotations}, line 1" in fails("tiny_imagenet", tmp_path, validation=8)
    annotations.write_bytes(b"\xff")
    assert f"{annotations} cannot be read: UnicodeDecodeError" in fails("tiny_imagenet", tmp_path, validation=8)
    annotations.write_bytes(b"")
    assert "the test split of tiny_imagenet has no image of 4" in fails("tiny_imagenet", tmp_path, validation=8)
    shutil.rmtree(folder / "train" / "n00000012")
    assert "class n00000012" in fails("tiny_imagenet", tmp_path, validation=8)
    formats.write_folders(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "test" / "bee")
    assert "bee has no images" in fails("folder", tmp_path / "set")
    (tmp_path / "set" / "test" / "dog").mkdir()
    assert "dog is a class that the train split lacks" in fails("folder", tmp_path / "set")


def test_a_validation_split_that_leaves_nothing_is_refused(tmp_path, write):
    write("svhn")
    assert "data.validation=60 leaves no train split" in fails("svhn", tmp_path, validation=60)


# Some of the train images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "cifar10", "fashion_mnist", "svhn", "tiny_imagenet", "folder"])
def test_some_of_the_train_images(tmp_path, write, name):
    """Classes keep their shares, few are a part of more, nothing else changes."""
    validation = None if name == "digits" else write(name)
    whole, few, more, every = (
        load_small(name, tmp_path, validation=validation, train=count) for count in (None, 13, 15, len_of(name))
    )
    numbered = {image.numpy().tobytes(): row for row, image in enumerate(whole.train.images)}
    rows = [[numbered[image.numpy().tobytes()] for image in data.train.images] for data in (few, more, every)]
    assert (len(rows[0]), len(rows[1])) == (13, 15)
    assert all(found == sorted(found) for found in rows)
    assert set(rows[0]) < set(rows[1]) < set(rows[2]) == set(range(len(whole.train)))
    assert rows[0] != list(range(13)), "they are drawn"
    for data, chosen in zip((few, more), rows, strict=False):
        assert torch.equal(data.train.labels, whole.train.labels[chosen])
        shares = torch.bincount(data.train.labels) / len(chosen) - torch.bincount(whole.train.labels) / len(whole.train)
        assert shares.abs().max() < 1 / len(chosen)
        for split in ("validation", "test"):
            assert torch.equal(getattr(data, split).images, getattr(whole, split).images)
    assert every.fingerprint() == whole.fingerprint() != few.fingerprint()


def len_of(name: str) -> int:
    """Train images of the small sets here."""
    return {"digits": 500, "cifar10": 200, "tiny_imagenet": 16, "folder": 24}.get(name, 40)


def test_rare_classes_keep_an_image():
    labels = torch.tensor([0] * 50 + [1] + [2] * 9)
    assert torch.bincount(labels[subset(labels, 3)]).tolist() == [1, 1, 1]
    assert torch.bincount(labels[subset(labels, 30)]).tolist() == [24, 1, 5]


@pytest.mark.parametrize("count", [0, 9, 401, 10**12])
def test_a_number_of_train_images_that_cannot_be_is_refused(count):
    """What is held out decides how many there are; the validation split of digits is its own."""
    message = fails("digits", Path(), train=count + 100 * (count > 400))
    assert message.startswith(f"data.train={count + 100 * (count > 400)} must lie in [10, 500]: ")


def test_what_is_held_out_is_no_train_image(tmp_path, write):
    write("svhn")
    assert "data.train=41 must lie in [10, 40]" in fails("svhn", tmp_path, validation=20, train=41)
    assert "data.train=41 must lie in [10, 30]" in fails("svhn", tmp_path, validation=30, train=41)


# Real data --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_fashion_mnist():
    """The Debian package's files, or those in data/: sizes, first labels and pixel statistics."""
    try:
        data = load(asdict(DATA["fashion_mnist"]))
    except ConfigError as error:
        if "fashion_mnist" in os.environ.get("HARNESS_REQUIRE", ""):
            raise
        pytest.skip(str(error))
    assert tuple(map(len, (data.train, data.validation, data.test))) == (55000, 5000, 10000)
    assert data.train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    values = torch.cat([data.train.images, data.validation.images]).double() / 255
    assert float(values.mean()) == pytest.approx(data.mean[0], abs=1e-4)
    assert float(values.std()) == pytest.approx(data.sd[0], abs=1e-4)


def test_views_are_numbered():
    """First every corner of the crop, then the same mirrored; an epoch shows some of them."""
    images = torch.arange(2 * 3 * 5 * 5).remainder(256).byte().reshape(2, 3, 5, 5)
    augmentation = Augmentation(Split(images, torch.arange(2)), padding=2, flip=True, seed=0)
    assert augmentation.views == 50
    padded = torch.nn.functional.pad(images, (2,) * 4)
    for n in range(2):
        for v in range(50):
            (dy, dx), mirrored = divmod(v % 25, 5), v >= 25
            expected = padded[n, :, dy : dy + 5, dx : dx + 5] / 255
            (found,) = augmentation(torch.tensor([50 * n + v]))
            assert torch.equal(found, expected.flip(-1) if mirrored else expected)
    rows = torch.tensor([[1, 0, 1]])
    shown = torch.cat([augmentation.draw(epoch, rows) for epoch in range(200)])
    assert torch.equal(shown // 50, rows.expand(200, -1))
    assert len(shown.unique()) > 90


def test_an_epoch_shows_each_image_one_view():
    """The draws by the definition of their streams: corners, then mirror images, for every image of the split."""
    images = torch.arange(12 * 36).remainder(251).byte().reshape(12, 1, 6, 6)
    batches = DeviceBatches(Split(images, torch.arange(12)), 1, True, 7, 5)
    (first, second), (again,) = batches.epoch(3), batches.epoch(3, skip=1)
    stream = streams.generator(7, "augmentation", 3)
    dy, dx = torch.randint(3, (2, 12), generator=stream)
    mirrored = torch.rand(12, generator=stream) < 0.5
    order = torch.randperm(12, generator=streams.generator(7, "order", 3))
    for batch, rows in ((first, order[:5]), (second, order[5:10]), (again, order[5:10])):
        assert torch.equal(batch.labels, rows)
        assert torch.equal(batch.views.on_host, rows * 18 + mirrored[rows] * 9 + dy[rows] * 3 + dx[rows])
        assert torch.equal(batch.views.on_host, batch.views.on_device)
        assert torch.equal(batch.images, batches.augmentation(batch.views.on_device))
        parts = batch.views.chunk(2)
        assert torch.equal(torch.cat([part.on_host for part in parts]), batch.views.on_host)


def test_images_lie_in_memory_once():
    """Padded ones; the others are a view of these, wherever the split goes."""
    images, labels = torch.randint(256, (6, 3, 5, 4), dtype=torch.uint8), torch.arange(6)
    split = Split(images, labels).pad(2)
    assert torch.equal(split.images, images)
    assert torch.equal(split.padded, torch.nn.functional.pad(images, (2,) * 4))
    assert split.images.untyped_storage().data_ptr() == split.padded.untyped_storage().data_ptr()
    moved = split.to("meta")
    assert moved.images.is_meta and moved.images.shape == images.shape and moved.images._base is moved.padded
    augmentation = Augmentation(split, 2, False, 0)
    assert augmentation.padded is split.padded
    wider = Augmentation(split, 3, False, 0)  # another margin than this
    assert torch.equal(wider.padded, torch.nn.functional.pad(images, (3,) * 4))
    assert Augmentation(Split(images, labels), 0, False, 0).padded is images
    assert Dataset(6, (0.5,) * 3, (0.5,) * 3, split, split, split).fingerprint() == (
        Dataset(6, (0.5,) * 3, (0.5,) * 3, *[Split(images, labels)] * 3).fingerprint()
    )


def test_a_run_holds_its_train_images_once(tmp_path):
    config = asdict(replace(DATA["digits"], padding=2))
    data, _ = load_images(config, torch.device("cpu"), Console())
    assert Augmentation(data.train, 2, False, 0).padded is data.train.padded
    assert torch.equal(data.train.images, load(config).train.images)


def test_held_out_images_do_not_keep_the_others_in_memory():
    images, labels = torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.zeros(10)
    kept, held = hold_out(images, labels, 3, "some")
    assert held.images.untyped_storage().nbytes() == held.images.nbytes
    assert (len(kept), len(held)) == (7, 3)
