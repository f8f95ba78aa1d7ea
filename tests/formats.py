"""Small data sets in the formats in which the real ones are published: writers, and the way to the code that reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from harness.config import ConfigError
from harness.config.options import DATA
from harness.training.data import Dataset, cifar, fashion_mnist, load, svhn, tiny_imagenet
from harness.training.data.archives import Archive


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(count: int, size: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def cycle(count: int, classes: int) -> np.ndarray:
    """Labels 0, 1, 2 ... again and again, so that every class is everywhere."""
    return np.arange(count) % classes


class Python2Pickler(pickle._Pickler):
    """Writes texts as Python 2 did, which is how the published files were made."""

    def save_bytestring(self, value: str | bytes) -> None:
        value = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<I", len(value)) + value)

    dispatch = {**pickle._Pickler.dispatch, str: save_bytestring, bytes: save_bytestring}  # noqa: RUF012


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def trust(monkeypatch: pytest.MonkeyPatch, reader: type, folder: Path) -> None:
    """Make the checksums that a CIFAR reader expects those of the small files."""
    for name in ("train_list", "test_list"):
        listed = [[file, md5(folder / file)] for file, _ in getattr(reader, name)]
        monkeypatch.setattr(reader, name, listed)
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(folder / reader.meta["filename"])})


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch, train: int = 200, test: int = 100) -> Path:
    """The tar file of CIFAR-10 (five batches of pickles) or CIFAR-100 (one); returns its path."""
    reader, classes = cifar.READERS[name], cifar.CLASSES[name]
    key = "labels" if name == "cifar10" else "fine_labels"
    build = root / "build" / reader.base_folder
    build.mkdir(parents=True)
    images, labels = pixels(train, 32).reshape(train, -1), cycle(train, classes)
    for k, (file, _) in enumerate(reader.train_list):
        part = slice(k * train // len(reader.train_list), (k + 1) * train // len(reader.train_list))
        batch = {
            b"data": images[part],
            key: labels[part].tolist(),
            b"filenames": [b"x.png"],
            b"batch_label": b"",
        }
        (build / file).write_bytes(pickled(batch))
    (build / reader.test_list[0][0]).write_bytes(
        pickled({"data": pixels(test, 32, seed=1).reshape(test, -1), key: cycle(test, classes).tolist()})
    )
    names = {reader.meta["key"]: [f"class {k}" for k in range(classes)]}
    (build / reader.meta["filename"]).write_bytes(pickled(names))
    trust(monkeypatch, reader, build)
    archive = root / reader.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(build, reader.base_folder)
    monkeypatch.setattr(reader, "tgz_md5", md5(archive))
    return archive


def write_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def write_fashion_mnist(root: Path, monkeypatch: pytest.MonkeyPatch, train: int = 60, test: int = 30) -> None:
    """The four gzipped IDX files."""
    arrays = (pixels(train, 28, 1)[:, 0], cycle(train, 10), pixels(test, 28, 1, 1)[:, 0], cycle(test, 10))
    listed = []
    for archive, values in zip(fashion_mnist.archives(), arrays, strict=True):
        write_idx(root / archive.path, values)
        listed.append(Archive(archive.path, archive.url, (md5(root / archive.path),)))
    monkeypatch.setattr(fashion_mnist, "archives", lambda: listed)


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch, train: int = 60, test: int = 30, classes: int = 10) -> None:
    """The two .mat files: X [32, 32, 3, N], y [N, 1] with 10 for the digit 0."""
    root.mkdir(parents=True, exist_ok=True)
    listed = dict(svhn.SVHN.split_list)
    for seed, (split, count) in enumerate((("train", train), ("test", test))):
        url, name, _ = listed[split]
        labels = cycle(count, classes)[:, None].astype(np.uint8)
        savemat(
            root / name,
            {"X": pixels(count, 32, 3, seed).transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)},
        )
        listed[split] = [url, name, md5(root / name)]
    monkeypatch.setattr(svhn.SVHN, "split_list", listed)


def jpeg(image: np.ndarray) -> bytes:
    """An image [3, H, W] as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def bmp(width: int, height: int) -> bytes:
    """The header of a picture of that size, and nothing else."""
    sizes = b"".join(x.to_bytes(4, "little") for x in (40, width, height))
    return b"BM" + bytes(8) + (54).to_bytes(4, "little") + sizes + b"\x01\x00\x18\x00" + bytes(24)


def write_tiny_imagenet(root: Path, classes: int = 4, train: int = 6, test: int = 3) -> Path:
    """The unpacked tree, `train` and `test` images a class; returns its folder."""
    folder = root / tiny_imagenet.FOLDER
    wnids = [f"n{10 + k:08}" for k in range(classes)]
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    (folder / "words.txt").write_text("".join(f"{wnid}\tthing, object\n" for wnid in [*wnids, "n99999999"]))
    for label, wnid in enumerate(wnids):
        place = folder / "train" / wnid
        (place / "images").mkdir(parents=True)
        (place / f"{wnid}_boxes.txt").write_text("".join(f"{wnid}_{k}.JPEG\t0\t0\t63\t63\n" for k in range(train)))
        for k, image in enumerate(pixels(train, 64, seed=label)):
            (place / "images" / f"{wnid}_{k}.JPEG").write_bytes(jpeg(image))
    lines = []
    for k, image in enumerate(pixels(classes * test, 64, seed=99)):
        (folder / "val" / "images" / f"val_{k}.JPEG").write_bytes(jpeg(image))
        lines.append(f"val_{k}.JPEG\t{wnids[k % classes]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def write_folders(root: Path, splits: tuple[str, ...] = ("train", "test"), count: int = 10) -> Path:
    """Class folders of pictures of several sizes and kinds."""
    for seed, split in enumerate(splits):
        for label, name in enumerate(("ant", "bee", "cat")):
            place = root / split / name
            place.mkdir(parents=True)
            for k in range(count):
                image = pixels(1, 20 + k, seed=seed * 10 + label)[0, :, :, : 20 + k // 2]
                Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{k:02}.{'png' if k % 2 else 'jpg'}")
    return root


def load_small(name: str, root: Path, **options) -> Dataset:
    return load(asdict(replace(DATA[name], root=str(root), **options)))


def fails(name: str, root: Path, **options) -> str:
    """The one line of the error that loading ends with."""
    with pytest.raises(ConfigError) as caught:
        load_small(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
