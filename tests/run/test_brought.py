"""What researchers bring of their own: networks and data sets, by a path or by an entry point."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.config import ConfigError, brought
from harness.config.composition import settle_paths
from harness.run.names import check_name
from harness.store import provenance
from harness.store.record import read_record
from harness.training import networks
from harness.training.data import load
from tests.heads import ROOT

OWN = ROOT / "tests" / "own"
README = ROOT / "harness" / "training"


# Of networks that are tried here.
LAYERS = """
import itertools, torch
from torch import nn
ONE, COUNT = nn.Linear(192, 10), itertools.count()
def linear(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
class Shift(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by
    def forward(self, images): return images + self.by
class Inplace(nn.Module):
    def forward(self, images): return images.mul_(2)
class Noise(nn.Module):
    def forward(self, images): return images + torch.rand(())
def numbered():
    layer = nn.Module()
    layer.level = nn.Parameter(torch.tensor(float(next(COUNT))))
    layer.forward = lambda images: images * layer.level
    return layer
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write modules into a folder that Python looks into, as the current one is."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    brought.load.cache_clear()
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def example(page: Path, file: str) -> str:
    """The code of a file that a page shows."""
    return re.search(rf"```python\n# {file}\n(.*?)```", page.read_text(), re.DOTALL)[1]


def options(name: str, **more) -> dict:
    return settle_paths({"runs": "runs", "bank": None, "data": {**vars(brought.data_options(name)), **more}})["data"]


def sweep(folder: Path, *arguments: str) -> list[dict]:
    """What a sweep from a folder has recorded; every run of it is done."""
    found = subprocess.run(
        [sys.executable, "-m", "harness", "-m", *arguments, "seed=0", "train=smoke", "train.steps_per_epoch=3"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{OWN}"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    records = [read_record(place) for place in sorted((folder / "runs").glob("*-s0-*"))]
    assert {record["status"] for record in records} == {"done"}
    return records


def test_a_package_brings_a_variant_a_network_and_a_data_set(tmp_path):
    """By their short names, swept with all others."""
    records = sweep(tmp_path, "method=all", "data=stripes", "model=small", "teachers.size=2")
    swept = {record["config"]["method"]["name"] for record in records}
    assert swept == {"kd", "ensemble_kd", "weight_averaging", "perturbation", "combined", "gentle"}
    assert len(records) == 6 and len({record["provenance"]["code"] for record in records}) == 1


def test_a_module_of_the_current_folder_goes_with_the_jobs(tmp_path):
    """Which start elsewhere; what is installed is found there, too, and stays where it is."""
    (tmp_path / "mynets.py").write_text(example(README / "networks" / "README.md", "mynets.py"))
    (record,) = sweep(tmp_path, "method=supervised", "data=stripes", "sweep.workers=1", "model=mynets:wide")
    assert record["provenance"]["code"] != provenance.code()
    assert len(list((tmp_path / "runs" / ".code").glob("*/mynets.py"))) == 1
    assert not list((tmp_path / "runs" / ".code").glob("*/own.py"))


def test_sets_of_ones_own_are_swept_over_by_their_paths(tmp_path):
    """Beside each other, and beside the harness's."""
    records = sweep(tmp_path, "method=supervised", "data=digits,own:stripes,'own:stripes'")
    assert {record["config"]["data"]["name"] for record in records} == {"digits", "own:stripes"}


def test_the_source_is_part_of_the_codes_hash(own, tmp_path):
    name = own("mynets", "def wide(classes, channels, size): ...")
    before = provenance.code.__wrapped__((name,))
    assert provenance.code.__wrapped__((name,)) == before != provenance.code.__wrapped__()
    own(name, "def wide(classes, channels, size): pass")
    assert provenance.code.__wrapped__((name,)) != before


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("nowhere:wide", {}, "no module named 'nowhere'"),
        ("mynets:narrow", {}, "mynets has no 'narrow'"),
        ("mynets:nn", {}, "is no function but module"),
        ("mynets:", {}, "names no function as MODULE:FUNCTION"),
        (":wide", {}, "names no function as MODULE:FUNCTION"),
        ("../mynets:wide", {}, "names no function as MODULE:FUNCTION"),
        ("mynets:wide:er", {}, "names no function as MODULE:FUNCTION"),
        ("mynets:wide", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("broken:wide", {}, "broken cannot be imported: ZeroDivisionError"),
        ("leaving:wide", {}, "leaving cannot be imported: SystemExit"),
        ("preresnet8", {"width": 3}, "preresnet8 has no options"),
    ],
)
def test_a_name_that_brings_no_network_is_refused_in_one_line(own, name, given, said):
    own("mynets", example(README / "networks" / "README.md", "mynets.py"))
    own("broken", "1 / 0")
    own("leaving", "raise SystemExit(0)")
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        check_name("model", name, given)
    assert str(error.value).startswith(f"model={name}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "no torch.nn.Module but int"),
        ("return nn.Flatten()", "answers images [2, 3, 8, 8] with [2, 192], not with logits [2, 10]"),
        ("return nn.Linear(7, classes)", "takes no images [2, 3, 8, 8]"),
        ("raise OSError('no weights here')", "cannot be made: OSError: no weights here"),
        ("raise SystemExit(0)", "cannot be made: SystemExit"),
        ("return linear().requires_grad_(False)", "no parameter to train"),
        ("return torch.jit.script(linear())", "a module of TorchScript"),
        ("return nn.Sequential(nn.ReLU(inplace=True), Shift(-1), nn.ReLU(inplace=True), linear())", None),
        ("return nn.Sequential(Inplace(), linear())", "writes to its images"),
        ("return nn.Sequential(Noise(), linear())", "in another way each time"),
        ("return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))", None),
        ("return nn.Sequential(nn.Flatten(), ONE)", "gives the same weights to each of its networks"),
        ("return nn.Sequential(numbered(), linear())", "does not draw 0.level by torch's own generator"),
    ],
)
def test_what_is_no_network_for_these_images_is_refused(own, body, said):
    own("mynets", f"{LAYERS}\ndef make(classes, channels, size):\n    {body}\n")

    def build():
        return networks.build("mynets:make", 10, (0.5,) * 3, (0.2,) * 3, torch.Generator().manual_seed(3), 8)

    if said is None:
        one, same = (build().state_dict() for _ in range(2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        return
    with pytest.raises(ValueError, match=re.escape(said)):
        build()


def test_initial_weights_are_the_streams(own):
    own("mynets", example(README / "networks" / "README.md", "mynets.py"))
    one, same, other = (
        networks.build("mynets:wide", 10, (0.5,), (0.2,), torch.Generator().manual_seed(seed), 8, {"width": 4})
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.network[0].weight, same.network[0].weight)
    assert not torch.equal(one.network[0].weight, other.network[0].weight) and len(one.network[0].weight) == 4


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 8, 8, 3), (40, 3, 8, 8), (40, 1, 8, 8), (40, 8, 8, 1)])
def test_pixels_in_any_usual_order(own, shape):
    own(
        "mysets",
        f"import numpy as np\ndef load(root):\n    x = np.arange({np.prod(shape)}).astype(np.uint8).reshape{shape}\n"
        "    y = np.arange(40)[:, None] % 4\n    return {'train': (x, y), 'test': (x[:8], list(y[:8, 0]))}\n",
    )
    data = load(options("mysets:load"))
    channels = 1 if len(shape) == 3 or 1 in shape else 3
    assert data.train.images.shape == (36, channels, 8, 8) and len(data.validation) == 4 and data.classes == 4
    x = torch.arange(np.prod(shape)).to(torch.uint8).view(shape)
    pixels = x[:, None] if len(shape) == 3 else x if shape[1] == channels else x.permute(0, 3, 1, 2)
    assert torch.equal(data.test.images, pixels[:8]) and data.test.labels.tolist() == [0, 1, 2, 3] * 2
    assert data.mean == pytest.approx((data.train.images.double().mean((0, 2, 3)) / 255).tolist())


def test_files_are_read_as_a_folders_are(own, tmp_path):
    for number in range(12):
        Image.new("RGB", (20, 12 + number), (10 * number, 0, 200)).save(tmp_path / f"{number}.png")
    own(
        "mysets",
        "def load(root):\n    def split(*numbers): return [root / f'{n}.png' for n in numbers], [n % 2 for n in numbers]\n"
        "    return {'train': split(*range(8)), 'test': split(8, 9), 'validation': split(10, 11)}\n",
    )
    whole = load(options("mysets:load", root=str(tmp_path), image_size=8))
    assert whole.train.images.shape == (8, 3, 8, 8) and whole.test.images[:, 0, 0, 0].tolist() == [80, 90]
    lazy = load(options("mysets:load", root=str(tmp_path), image_size=8, memory_gb=0.0, workers=0))
    assert lazy.fingerprint().startswith("files-") and lazy.test.images[:].shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("{'train': (x, y)}", "no test split"),
        ("{'train': (x, y), 'test': (x, y), 'extra': 1}", "'extra'"),
        ("{'train': (x / 255, y), 'test': (x, y)}", "pixels of torch.float64, not uint8"),
        ("{'train': (x, y), 'test': (x[:, :4], y)}", "images [40, 4, 8]"),
        ("{'train': (x, y), 'test': (x[:, :4, :4], y)}", "images of [1, 4, 4] and of [1, 8, 8]"),
        ("{'train': (x, y[:9]), 'test': (x, y)}", "40 images but 9 labels"),
        ("{'train': (x, y), 'test': (x, y + 0.5)}", "one whole number an image"),
        ("{'train': (x, y), 'test': (x, np.eye(4)[y])}", "one whole number an image"),
        ("{'train': (x, y), 'test': (x, y), 'classes': ['a']}", "labels from 0 to 3, more than its 1 classes"),
        ("{'train': (x, y), 'test': (x, y - 1)}", "labels from -1 to 2: they count from 0"),
        ("{'train': (x, y * 10**12), 'test': (x, y)}", "more than its 40 images to train on"),
        ("{'train': (x, y), 'test': (x, y.astype(np.uint64) + np.uint64(2**63))}", "they count from 0"),
        ("{'train': (x, y), 'test': (x[:0], y[:0])}", "is empty"),
        ("{'train': (x, y), 'test': (x, y), 'classes': {0: 'a', 1: 'b', 2: 'c', 3: 'd'}}", "classes of type dict"),
        ("{'train': (x, y), 'test': (x, y), 'classes': {'a', 'b', 'c', 'd'}}", "classes of type set"),
        ("{'train': (x, y), 'test': (x, y), 'classes': 'abcd'}", "classes of type str"),
        ("{'train': (x, y), 'test': (x, y), 'classes': 4}", "classes of type int"),
        ("{'train': (x, y), 'test': (x, y), 'classes': list('aabc')}", "two classes named 'a'"),
        (
            "{'train': (x, y), 'test': ([x[0], x[1, 1:]] * 20, y)}",
            "no images and labels that could be read: ValueError",
        ),
        (
            "{'train': (x, y), 'test': ((image for image in x), y)}",
            "no images and labels that could be read: TypeError",
        ),
        ("exit(0)", "SystemExit: 0"),
        ("{'train': (x, y), 'test': (['a.png'] * 40, y)}", "files for one split and pixels for another"),
        ("[x, y]", "returns list, not a dictionary"),
        ("{'train': x, 'test': (x, y)}", "not (images, labels)"),
        ("open('nowhere')", "FileNotFoundError"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(own, returned, said):
    own(
        "mysets",
        "import numpy as np\ndef load(root):\n    x, y = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 4\n"
        f"    return {returned}\n",
    )
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        load(options("mysets:load"))
    assert "data=mysets:load" in str(error.value) or "of mysets:load" in str(error.value)
    assert "\n" not in str(error.value)


def test_medmnist_as_its_files_are(own, tmp_path):
    """Its .npz: images [N, 28, 28, 3] or [N, 28, 28], labels [N, 1], by `train`, `val`, `test`."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 60, "val": 20, "test": 30}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 8)[:, None].astype(np.uint8)
    np.savez_compressed(tmp_path / "bloodmnist.npz", **arrays)
    own("medmnist_sets", example(README / "data" / "README.md", "medmnist_sets.py"))
    data = load(options("medmnist_sets:load", root=str(tmp_path), options={"flag": "bloodmnist"}))
    assert (len(data.train), len(data.validation), len(data.test), data.classes) == (60, 20, 30, 8)
    assert torch.equal(data.test.images, torch.from_numpy(arrays["test_images"]).permute(0, 3, 1, 2))
    with pytest.raises(ConfigError, match="has a validation split of its own"):
        load(options("medmnist_sets:load", root=str(tmp_path), options={"flag": "bloodmnist"}, validation=5))
