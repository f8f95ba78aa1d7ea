"""Sets that stay in their files: worker processes, whose number does not show, through the code of every other set."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from harness import data as command
from harness import deploy, streams, verify
from harness.config import ConfigError
from harness.config.methods import build_method
from harness.config.options import DATA
from harness.run import supply
from harness.run.data import check_unwritten, load_images
from harness.runtime.console import Console
from harness.store.fingerprints import agree
from harness.store.identity import run_directory, run_hash
from harness.store.record import read_record, write_record
from harness.training.data import Dataset, Split, load, train_batches
from harness.training.data.batches import Own, all_of
from harness.training.data.files import FileImages
from harness.training.data.workers import RandomView, WorkerBatches
from harness.training.inference import predict, reestimate_batch_norm
from harness.training.ranks import Group
from tests import formats
from tests.heads import wait_for
from tests.running import configure, run

SIZE = 16
HANGS_S = 240  # who waits so long waits for ever
CLASSES = ("ant", "bee", "cat")


def write_photos(root: Path, splits: dict[str, int]) -> Path:
    """Class folders of JPEGs of several shapes, so many a class; classes differ in colour."""
    for seed, (split, count) in enumerate(splits.items()):
        draw = np.random.default_rng(seed)
        for label, name in enumerate(CLASSES):
            place = root / split / name
            place.mkdir(parents=True)
            for k in range(count):
                coarse = draw.integers(0, 200, (5, 6, 3), dtype=np.uint8)
                coarse[..., label] += 55
                picture = Image.fromarray(coarse).resize((24 + k % 5, 20 + k % 3), Image.Resampling.BICUBIC)
                picture.save(place / f"{k:03}.JPEG", quality=95)
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """20 train images a class, of which 5 are held out, and 8 test images a class."""
    return write_photos(tmp_path_factory.mktemp("photos"), {"train": 20, "val": 8})


def options(photos: Path, workers: int | None = 0, **more) -> dict:
    return asdict(DATA["folder"]) | {
        **{"root": str(photos), "image_size": SIZE, "memory_gb": 0.0, "workers": workers, "validation": 15},
        **more,
    }


def batches(
    photos: Path, workers: int = 0, seed: int = 0, steps: int | None = None, own: Own = all_of
) -> WorkerBatches:
    found = train_batches(load(options(photos, workers)).train, 8, True, seed, 10, steps, own)
    assert isinstance(found, WorkerBatches)
    return found


def test_some_of_the_files(photos):
    """The same as of a set in memory, and as many of them decide whether it stays in its files."""
    few = load(options(photos, train=12))
    assert isinstance(few.train.images, FileImages)
    kept = load(options(photos, train=12, memory_gb=1.0))
    assert torch.equal(few.train.labels, kept.train.labels)
    assert torch.bincount(few.train.labels).tolist() == [4, 4, 4]
    every = load(options(photos)).train.images.names.tolist()
    chosen = [every.index(name) for name in few.train.images.names.tolist()]
    assert chosen == sorted(chosen) != list(range(12))
    assert torch.equal(kept.train.images, load(options(photos, memory_gb=1.0)).train.images[chosen])
    images = 12 + 15 + 24
    enough = images * 3 * SIZE**2 / 1e9
    assert isinstance(load(options(photos, train=12, memory_gb=enough)).train.images, torch.Tensor)
    with pytest.raises(ConfigError, match=r"^data\.train=46 must lie in \[3, 45\]: [^\n]*$"):
        load(options(photos, train=46))


def epochs(source, count: int = 2) -> list:
    return [(batch.images, batch.labels) for epoch in range(count) for batch in source.epoch(epoch)]


def same(some, others) -> bool:
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_ranks_decode_their_own_rows_of_the_same_batches(photos):
    """Of two ranks, with two workers each, as of one process without any."""
    ranks = [Group.__new__(Group) for _ in range(2)]
    for number, rank in enumerate(ranks):
        rank.rank, rank.count = number, 2
    shares = [epochs(batches(photos, 2, own=partial(rank.own, parts=1))) for rank in ranks]
    together = [tuple(map(torch.cat, zip(*pair, strict=True))) for pair in zip(*shares, strict=True)]
    assert same(together, epochs(batches(photos)))
    assert all(len(images) == 5 for images, _ in shares[0])


def test_sets_stay_in_files_above_the_limit(photos):
    data, limit = load(options(photos)), 84 * 3 * SIZE * SIZE / 1e9
    assert isinstance(data.train.images, FileImages)
    assert tuple(map(len, (data.train, data.validation, data.test))) == (45, 15, 24)
    assert torch.bincount(data.validation.labels).tolist() == [5, 5, 5]
    assert isinstance(load(options(photos, memory_gb=1.01 * limit)).train.images, torch.Tensor)
    assert isinstance(load(options(photos, memory_gb=0.99 * limit)).train.images, FileImages)


def test_the_number_of_workers_does_not_show(photos):
    reference = epochs(batches(photos))
    assert len(reference) == 8
    for workers in (1, 2):
        assert same(reference, epochs(batches(photos, workers)))
    assert not torch.equal(reference[0][0], epochs(batches(photos, 0, seed=1), 1)[0][0])
    assert not torch.equal(reference[0][0], reference[4][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_resume_in_mid_epoch(photos, workers):
    reference = epochs(batches(photos))
    resumed = [(batch.images, batch.labels) for batch in batches(photos, workers).epoch(1, 2)]
    assert same(reference[6:], resumed)
    broken = batches(photos, workers)  # an epoch that is left in its middle
    next(broken.epoch(0))
    assert same(reference[4:], [(batch.images, batch.labels) for batch in broken.epoch(1)])


def test_skipped_images_are_not_decoded(photos, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path, **how: opened.append(path) or original(path, **how))
    source = batches(photos)
    opened.clear()
    list(source.epoch(0, 3))
    assert len(opened) == 10


def test_views_go_with_their_labels_and_are_mirrored_and_cut(photos, monkeypatch):
    """Classes differ in colour, so a view tells its class; every image appears once an epoch."""
    source, asked = batches(photos), []
    read = source.images.read
    monkeypatch.setattr(source.images, "read", lambda rows, *how: asked.append(rows) or read(rows, *how))
    for images, labels in epochs(source):
        assert images.shape == (10, 3, SIZE, SIZE) and images.dtype == torch.float32
        assert (images.mean((2, 3)).argmax(1) == labels).float().mean() > 0.8
    assert [len(rows.unique()) for rows in asked] == [40, 40]


def test_random_views_are_those_of_torchvision():
    """Of thin images too, where none of the parts that are drawn fits."""
    draw = np.random.default_rng(0)
    for number, (width, height) in enumerate([*draw.integers(1, 60, (150, 2)).tolist(), *[(2, 90), (90, 2)] * 5]):
        image = Image.fromarray(draw.integers(0, 255, (height, width, 3), dtype=np.uint8))
        expected = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        with torch.random.fork_rng():
            torch.manual_seed(streams.derive(3, "augmentation", 1, number))
            assert np.array_equal(RandomView(SIZE, True, 3)(image, (1, number)), expected(image).numpy())


def test_drawing_views_leaves_the_layers_stream_alone(photos):
    source = batches(photos)
    before = torch.get_rng_state()
    list(source.epoch(0))
    source.split.images[:4]
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_takes_the_centre(photos):
    images = load(options(photos, 2)).test.images
    files = sorted((photos / "val").rglob("*.JPEG"))
    for row in (1, 4, 19):  # where the longer side comes out whole, or both round it the same way
        picture = TF.center_crop(TF.resize(Image.open(files[row]), round(SIZE * 8 / 7)), SIZE)
        assert torch.equal(images[row : row + 1][0], TF.pil_to_tensor(picture))
    whole = torch.cat(list(images.split(7)))
    assert torch.equal(whole, images[:])
    assert torch.equal(images[torch.tensor([3, 1, 3])], whole[[3, 1, 3]])
    assert torch.equal(torch.cat(list(load(options(photos, 0)).test.images.split(24))), whole)


def test_evaluation_is_that_of_a_set_in_memory(photos):
    data = load(options(photos, 2))
    held = [Split(split.images[:], split.labels) for split in (data.train, data.validation, data.test)]
    memory = Dataset(data.classes, data.mean, data.sd, *held)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 14, 3)
    ).eval()
    assert torch.equal(predict(network, data.test, 10), predict(network, memory.test, 10))
    reestimate_batch_norm(network, data.train, 10)
    from_files = network[1].running_mean.clone()
    reestimate_batch_norm(network, memory.train, 10)
    assert torch.equal(from_files, network[1].running_mean)


def test_fingerprints_know_files_and_splits(photos, tmp_path):
    data = load(options(photos))
    assert data.fingerprint() == load(options(photos, 2)).fingerprint()
    assert data.fingerprint() != load(options(photos, validation=12)).fingerprint()
    other = write_photos(tmp_path / "other", {"train": 20, "val": 8})
    assert load(options(other)).fingerprint() == data.fingerprint()  # wherever they lie, and however old they are
    path = other / "train" / "bee" / "003.JPEG"
    whole, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    for place in (len(whole) // 2, len(whole) - 3):  # another image of the same size and time
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        os.utime(path, ns=times)
        assert load(options(other)).fingerprint() != data.fingerprint()
    path.write_bytes(whole)
    path.rename(path.with_name("003b.JPEG"))
    assert load(options(other)).fingerprint() != data.fingerprint()


def test_large_files_are_sampled_or_read_whole(tmp_path):
    root = write_photos(tmp_path, {"train": 20, "val": 8})
    path = root / "train" / "ant" / "000.JPEG"
    whole = path.read_bytes() + bytes(100_000)
    path.write_bytes(whole)
    sample, full = (load(options(root)).fingerprint(closely) for closely in (False, True))
    assert full.startswith(f"{sample}+")
    for place, seen in ((60_000, False), (4_000, True), (50_000, True), (len(whole) - 1, True)):
        path.write_bytes(whole[:place] + b"x" + whole[place + 1 :])
        data = load(options(root))
        assert (data.fingerprint() != sample) == seen
        assert data.fingerprint(True) != full
        assert not agree(full, data.fingerprint(True))
        assert agree(full, data.fingerprint()) == agree(data.fingerprint(True), sample) == (not seen)


def older(data: Dataset) -> str:
    """As code that knew names and sizes only wrote it."""
    digest = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        one = hashlib.sha256(repr(tuple(split.images.shape)).encode())
        for path in map(Path, map(os.fsdecode, split.images.names)):
            one.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        digest.update(one.digest() + split.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def test_records_of_an_older_fingerprint_are_not_of_other_data(tmp_path, capsys):
    root = write_photos(tmp_path / "photos", {"train": 20, "val": 8})
    made = run_options(root, 0) | {"data": "folder"}
    run(tmp_path, **made)
    directory = run_directory(configure(tmp_path, **made))
    record = read_record(directory)
    record["provenance"]["data"] = older(load(options(root)))
    write_record(directory, record)
    capsys.readouterr()
    assert run(tmp_path, **made)["provenance"]["data"] == record["provenance"]["data"]
    assert "note: its fingerprint of the data is of an older kind" in capsys.readouterr().out
    assert verify.main([str(directory)]) == deploy.main([str(directory), "--to", str(tmp_path / "to")]) == 0
    assert capsys.readouterr().out.count("is of an older kind") == 2
    path = root / "train" / "bee" / "001.JPEG"
    path.write_bytes(path.read_bytes() + b"!")
    run(tmp_path, **made)
    assert "it was trained and tested on other images" in capsys.readouterr().out
    assert verify.main([str(directory)]) == 1
    assert f"its data are others by now ({record['provenance']['data']}, now files-" in capsys.readouterr().out


def test_images_written_to_meanwhile_are_noticed(tmp_path):
    root = write_photos(tmp_path, {"train": 20, "val": 8})
    given = (options(root), torch.device("cpu"), Console())
    data, fingerprint = load_images(*given)
    assert load_images(*given)[0] is data
    check_unwritten(*given)
    path = root / "val" / "ant" / "001.JPEG"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ConfigError, match=f"somebody wrote to images of {root} while the run read them"):
        check_unwritten(*given)
    again, other = load_images(*given)
    assert again is not data and other != fingerprint
    check_unwritten(*given)


# What cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_one_line(tmp_path, workers):
    root = write_photos(tmp_path, {"train": 20, "val": 8})
    train, test = root / "train" / "cat" / "004.JPEG", root / "val" / "ant" / "002.JPEG"
    source, data = batches(root, workers), load(options(root, workers))
    train.write_bytes(train.read_bytes()[:200])
    test.write_bytes(b"no picture")
    for path, work in ((train, lambda: list(source.epoch(0))), (test, lambda: list(data.test.images.split(5)))):
        with pytest.raises(ConfigError) as caught:
            work()
        assert str(caught.value).startswith(f"{path} cannot be read as an image")
        assert "\n" not in str(caught.value)


def test_options_that_mean_nothing_are_refused(tmp_path):
    for changes, message in (
        ({"data__workers": -1}, "data.workers must not be negative"),
        ({"data__memory_gb": -0.5}, "data.memory_gb must not be negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            configure(tmp_path, **changes)
    with pytest.raises(ConfigError, match=r"data=imagenet needs data\.root=FOLDER"):
        configure(tmp_path, data="imagenet")


# ImageNet ---------------------------------------------------------------------------------------------------------


def test_imagenet_in_its_layout(tmp_path):
    picture = formats.jpeg(formats.pixels(1, 40)[0])
    for split, count in (("train", 3), ("val", 1)):
        for k in range(1000):
            place = tmp_path / split / f"n{1440764 + k:08}"
            place.mkdir(parents=True)
            for number in range(count):
                (place / f"{place.name}_{number}.JPEG").write_bytes(picture)
    (tmp_path / "test").mkdir()  # its unlabelled images are no split
    config = asdict(replace(DATA["imagenet"], root=str(tmp_path), validation=1000, memory_gb=0.5))
    data = load(config)
    assert tuple(map(len, (data.train, data.validation, data.test))) == (2000, 1000, 1000)
    assert (data.classes, data.size, data.mean) == (1000, 224, (0.485, 0.456, 0.406))
    assert isinstance(data.train.images, FileImages)
    assert data.train.images[:2].shape == (2, 3, 224, 224)
    for path in (tmp_path / "train" / "n01440764", tmp_path / "val" / "n01440764"):
        shutil.rmtree(path)
    with pytest.raises(ConfigError, match="has 999 classes, ImageNet-1k has 1,000"):
        load(config)


# Whole runs -------------------------------------------------------------------------------------------------------


def run_options(photos: Path, workers: int = 2) -> dict:
    small = {"train__batch_size": 10, "train__steps_per_epoch": 3, "evaluate__diagnostics": True}
    return {f"data__{key}": value for key, value in options(photos, workers).items() if key != "name"} | small


def test_runs_do_not_depend_on_workers(tmp_path, photos):
    found = []
    for workers in (0, 2):
        made = run_options(photos, workers) | {"data": "folder", "evaluate__shift": workers == 2}
        record = run(tmp_path / str(workers), "combined", **made)
        assert record["status"] == "done"
        found.append(record["metrics"]["student"])
    assert found[0] == found[1]
    assert record["cost"]["flops"] > 0
    assert record["shift"]["source"] == "builtin"
    assert record["diagnostics"]["members"] and record["diagnostics"]["fidelity"]
    directory = run_directory(configure(tmp_path / "2", "combined", **made))
    assert deploy.main([str(directory), "--to", str(tmp_path / "deployed")]) == 0


def test_every_method_sees_the_same_batches(tmp_path, photos):
    from harness.training import networks
    from harness.training.trainer import Trainer
    from methods.method import Teachers

    data = load(options(photos, 0))
    seen = []
    for name in ("kd", "combined", "perturbation"):
        config = configure(tmp_path, name, **run_options(photos), data="folder")
        method = build_method(config)
        build = lambda seed: networks.build(  # noqa: E731
            "preresnet_tiny", 3, data.mean, data.sd, streams.generator(seed, "init")
        )
        teachers = Teachers([build(f"teacher/0/{m}") for m in range(method.teachers or 2)])
        trainer = Trainer(method, data, teachers, config["train"], padding=0, flip=True, seed=0)
        training = trainer.start(build(0))
        shown = []
        for epoch in range(2):
            for batch in trainer.batches.epoch(epoch):
                assert batch.views is None
                shown.append((batch.images.clone(), batch.labels))
                trainer.take_step(training, batch)
        seen.append(shown)
    assert same(seen[0], seen[1]) and same(seen[0], seen[2])


def command_line(photos: Path, runs: Path, *more: str) -> list[str]:
    data = f"data=folder data.root={photos} data.image_size={SIZE} data.memory_gb=0 data.workers=2 data.validation=15"
    recipe = "train.batch_size=10 train.epochs=2 train.warmup_epochs=0 train.checkpoint_every=1 teachers.size=2"
    start = [sys.executable, "-m", "harness", *data.split(), *recipe.split(), f"runs={runs}", "device=cpu"]
    return [*start, "method=kd", *more]


@pytest.mark.slow
def test_the_command_line(tmp_path, photos):
    ended = subprocess.run(command_line(photos, tmp_path), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (record,) = (read_record(path.parent) for path in tmp_path.glob("folder-*/record.json"))
    assert record["status"] == "done"
    assert record["metrics"]["student"]["test"]["nll"] > 0


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, photos):
    """The signal goes to the whole process group, workers included, as SLURM and the keyboard send it."""
    whole = command_line(photos, tmp_path / "whole", "train.epochs=6")
    assert subprocess.run(whole, capture_output=True, check=False).returncode == 0
    stopped = command_line(photos, tmp_path / "stopped", "train.epochs=6")
    process = subprocess.Popen(
        stopped, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    student = next(path for path in (tmp_path / "whole").glob("folder-*")).name
    checkpoint = tmp_path / "stopped" / student / "checkpoint.pt"
    wait_for(lambda: process.poll() is not None or checkpoint.exists(), "a checkpoint")
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode != 0, output
    assert read_record(tmp_path / "stopped" / student)["status"] == "interrupted", output
    assert subprocess.run(stopped, capture_output=True, check=False).returncode == 0
    whole, resumed = (load_file(tmp_path / kind / student / "student.safetensors") for kind in ("whole", "stopped"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_a_bomb_among_the_images_ends_a_run_in_one_line(tmp_path):
    """Its header claims 2 GB; a worker meets it, and nobody waits for anybody."""
    root = write_photos(tmp_path / "photos", {"train": 40, "val": 8})
    path = root / "train" / "bee" / "0.bmp"
    path.write_bytes(formats.bmp(26_000, 26_000))
    command = command_line(root, tmp_path / "runs")
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANGS_S)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {path} ") and len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stdout


def test_the_hash_ignores_the_number_of_workers(tmp_path, photos):
    made = [configure(tmp_path, data="folder", **run_options(photos, workers)) for workers in (0, 2)]
    assert run_hash(made[0]) == run_hash(made[1])
    assert run_directory(made[0]) == run_directory(made[1])


def test_the_data_command_measures_throughput(photos, capsys, monkeypatch):
    monkeypatch.setattr(supply, "SECONDS", 0.05)
    given = ["folder", str(photos), f"image_size={SIZE}", "memory_gb=0", "workers=1", "validation=15"]
    assert command.main(given) == 0
    told = capsys.readouterr().out
    assert "train 45, validation 15, test 24" in told and "images/s (1 workers" in told
    for option in ("imagesize=3", "image_size=-1", "padding=-1"):
        assert command.main(["folder", str(photos), option]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
