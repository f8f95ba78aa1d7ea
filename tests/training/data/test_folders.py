"""Folders as people have them: every file is an image of a split, or counted, or named in an error."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data import Dataset
from harness.training.data.folder import load
from harness.training.data.listing import LeftOut, list_images
from tests.running import configure

KINDS = {".gif": "GIF", ".pgm": "PPM", ".png": "PNG", ".tiff": "TIFF"}


def picture(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((9, 9), level, np.uint8))
    image.save(path, KINDS.get(path.suffix.lower(), "JPEG"))


def write(root: Path, **splits: dict[str, int]) -> Path:
    """SPLIT={CLASS: how many images}."""
    for split, classes in splits.items():
        for name, count in classes.items():
            for number in range(count):
                picture(root / split / name / f"{number:03}.jpg", number)
    return root


def read(root: Path, **options) -> tuple[Dataset, str]:
    """The set, and the one line that sums it up."""
    said = io.StringIO()
    config = configure(root, data="folder", data__root=str(root), data__image_size=8, **options)["data"]
    data = load(config, Console(said))
    (line,) = said.getvalue().splitlines()
    return data, line


def refused(root: Path, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(root), "ROOT")


def sizes(data: Dataset) -> tuple[int, ...]:
    return tuple(map(len, (data.train, data.validation, data.test)))


def test_images_are_those_of_torchvision_and_in_its_order(tmp_path):
    for name in ("b.jpg", "a.PNG", "sub/c.jpeg", "sub-1/d.pgm", "sub/deep/e.tiff", "Z.jpg", "sub/a.jpg"):
        picture(tmp_path / "ant" / name)
    (tmp_path / "linked").mkdir()
    picture(tmp_path / "linked" / "x.jpg")
    (tmp_path / "ant" / "more").symlink_to(tmp_path / "linked")
    expected = [Path(path) for path, _ in ImageFolder(tmp_path, allow_empty=True).samples if "/ant/" in path]
    assert len(expected) == 8
    assert list_images(tmp_path / "ant", LeftOut()) == expected


def test_every_file_is_used_or_counted(tmp_path):
    root = write(tmp_path, train={"ant": 20, "bee": 20}, test={"ant": 5, "bee": 5})
    for name in ("a.gif", "b.jfif", "2020/c.pgm"):  # images too
        picture(root / "train" / "ant" / name)
    for name in (".ipynb_checkpoints/a.jpg", "@eaDir/b.jpg", "bee/._c.jpg", "bee/.thumbs/d.jpg", ".DS_Store"):
        picture(root / "train" / name)
    picture(root / "test" / ".ipynb_checkpoints" / "a.jpg")
    picture(root / "train" / "ant" / "notes.txt")
    picture(root / "train" / "ant" / "image")
    picture(root / "train" / "stray.jpg")
    os.mkfifo(root / "train" / "ant" / "pipe.jpg")
    (root / "train" / "ant" / "again").symlink_to("../..")
    for split in ("train", "test"):  # or test images would be those of a class to train on
        (root / split / "again").symlink_to("..")
    for place in ("unlabelled", ".git"):
        (root / place).mkdir()
        (root / place / "gone").symlink_to("nowhere")
    (root / "train" / "ant" / "x.\n").touch()
    for number in range(7):
        picture(root / "unlabelled" / "deep" / f"{number}.jpg")
    (root / "README").touch()
    data, line = read(root)
    assert sum(sizes(data)) == 53
    assert sizes(data) == (39, 4, 10)
    assert line.replace(str(root), "ROOT") == (
        "53 images of ROOT, 24 left out: 8 in unlabelled/, 7 hidden, 3 links in a circle, 2 without a suffix, 1 .txt, "
        "3 others; read into memory"
    )
    assert "53 images of ROOT, 24 left out: 8 in unlabelled/" in read(root, data__memory_gb=0.0)[1].replace(
        str(root), "ROOT"
    )


def test_images_that_are_not_trained_on_are_counted(tmp_path):
    write(tmp_path, train={"ant": 20, "bee": 20}, test={"ant": 5, "bee": 5})
    data, line = read(tmp_path, data__train=10)
    assert sizes(data) == (10, 4, 10) and "24 images of" in line and "26 left out: 26 beyond data.train=10;" in line


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation"])
def test_a_validation_folder_by_any_name(tmp_path, name):
    write(tmp_path, Training={"ant": 9, "bee": 7}, test={"ant": 3, "bee": 3}, **{name: {"ant": 2, "bee": 4}})
    data, _ = read(tmp_path)
    assert sizes(data) == (16, 6, 6)
    assert refused(tmp_path, data__validation=4).startswith("data.validation=4 holds out train images, but ROOT/")
    (tmp_path / "test").rename(tmp_path / "other")  # what is no longer the test split is counted
    data, line = read(tmp_path)
    assert sizes(data) == (14, 2, 6) and "6 in other/" in line


@pytest.mark.parametrize(
    ("counts", "wanted", "held"),
    [
        ((100, 100, 8), None, [10, 10, 1]),
        ((100, 100, 8), 21, [10, 10, 1]),
        ((100, 100, 8), 104, [50, 50, 4]),
        ((100, 100, 8), 3, [1, 1, 1]),
        ((100, 100, 8), 205, [99, 99, 7]),
        ((90, 2, 2, 2), 12, [9, 1, 1, 1]),
        ((10, 10, 10), 7, [3, 2, 2]),
        ((2, 2), None, [1, 1]),
    ],
)
def test_the_same_share_of_each_class_is_held_out(tmp_path, counts, wanted, held):
    names = [f"class{k}" for k in range(len(counts))]
    write(tmp_path, train=dict(zip(names, counts, strict=True)), test=dict.fromkeys(names, 1))
    data, _ = read(tmp_path, data__validation=wanted, data__memory_gb=0.0, data__workers=0)
    assert torch.bincount(data.validation.labels).tolist() == held
    assert torch.bincount(data.train.labels).tolist() == [n - k for n, k in zip(counts, held, strict=True)]


def test_what_cannot_be_split_says_what_to_do(tmp_path):
    write(tmp_path, train={"ant": 9, "bee": 1}, test={"ant": 3, "bee": 3})
    assert "class bee of ROOT/train has 1 image: too few to hold out 1; add some" in refused(tmp_path)
    picture(tmp_path / "train" / "bee" / "b.jpg")
    for wanted, lacking in ((1, "validation"), (10, "train")):
        said = refused(tmp_path, data__validation=wanted)
        assert f"data.validation={wanted} leaves no {lacking} split of the 11 images" in said
        assert "choose from 2 to 9" in said
    assert sum(sizes(read(tmp_path, data__validation=9)[0])) == 17


def test_trees_that_are_no_set_say_what_to_do(tmp_path):
    root = write(tmp_path, train={"ant": 9, "bee": 9}, test={"ant": 3, "bee": 3})
    (root / "test" / "bee" / "000.jpg").rename(root / "test" / "bee" / "000.heic")
    for number in (1, 2):
        (root / "test" / "bee" / f"00{number}.jpg").unlink()
    assert "ROOT/test/bee has no images (1 left out: 1 .heic): add some" in refused(root)
    (root / "test" / "bee" / "000.heic").rename(root / "test" / "bee" / "000.jpg")
    for place, target in (
        ("ant/gone.jpg", "nowhere"),
        ("ant/self.jpg", "self.jpg"),
        ("ant/2020", "/no"),
        ("cat", "/no"),
    ):
        link = root / "train" / place
        link.symlink_to(target)
        assert f"ROOT/train/{place} is a link to nothing: mend it" in refused(root)
        link.unlink()
    (root / "Train").mkdir()
    assert "are both the train split: keep one of them" in refused(root)
    (root / "Train").rmdir()
    (root / "test").rename(root / "flat")
    picture(root / "test" / "1.jpg")
    assert "ROOT/test has no folders of classes: move its images into them, or rename it" in refused(root)


def test_digits_hold_out_as_many_as_asked(tmp_path):
    from harness.training.data import digits

    for wanted, expected in ((None, (500, 300, 997)), (100, (700, 100, 997)), (790, (10, 790, 997))):
        config = configure(tmp_path, data__validation=wanted)["data"]
        data = digits.load(config, Console())
        assert sizes(data) == expected
        assert torch.bincount(data.train.labels, minlength=10).min() >= 1
    with pytest.raises(ConfigError, match="choose from 10 to 790"):
        digits.load({**config, "validation": 795}, Console())
