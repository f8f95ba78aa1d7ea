"""Corrupted images, other data sets, selective prediction: definitions, files, and what a record holds."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from harness.config import ConfigError
from harness.evaluation import corruptions, metrics, ood
from harness.evaluation import shift as shift_module
from harness.evaluation.shift import ARRAYS, Shift
from harness.store import provenance
from harness.store.findings import Findings
from harness.training.data import Split
from tests import damage, formats
from tests.running import configure, run


@pytest.fixture
def images():
    """Smooth pictures [6, 3, 32, 32], on which blur, noise and JPEG show."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 6, 6, generator=draw)
    return (torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1) * 255).byte()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).square().mean())


@pytest.mark.parametrize("kind", corruptions.STRENGTHS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8)])
def test_corruptions_are_deterministic_and_grow(images, kind, shape):
    images = torch.nn.functional.interpolate(images[:, : shape[0]].float(), shape[1:]).byte()
    torch.manual_seed(1)
    found = [corruptions.corrupt(images, kind, severity, "x") for severity in corruptions.SEVERITIES]
    torch.manual_seed(2)
    again = corruptions.corrupt(images, kind, 3, "x")
    assert torch.equal(found[2], again)
    assert all(x.shape == images.shape and x.dtype == torch.uint8 for x in found)
    changes = [distance(x, images) for x in found]
    assert changes[-1] > changes[0]
    assert changes[-1] > 1


def test_suite_has_ten_types_at_five_severities():
    seen = list(corruptions.suite())
    assert len(set(seen)) == len(seen) == 50


# Kept -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """The names of the corruptions that are computed, as they are; two of the suite."""
    few = {kind: corruptions.STRENGTHS[kind] for kind in (corruptions.contrast, corruptions.shot_noise)}
    monkeypatch.setattr(corruptions, "STRENGTHS", few)
    found, original = [], corruptions.corrupt
    monkeypatch.setattr(corruptions, "corrupt", lambda *given: found.append(given[1].__name__) or original(*given))
    return found


def test_corrupted_images_are_computed_once_for_all_students(tmp_path, made):
    expected = [
        (kind.__name__, severity, corruptions.corrupt(shift_of(tmp_path).test.images, kind, severity, "cifar10"))
        for kind, severity in corruptions.suite()
    ]
    made.clear()
    for _ in range(2):  # students
        shift = shift_of(tmp_path)
        for _ in range(2):  # teachers and student
            found = list(shift)
            assert [(kind, severity) for kind, severity, _ in found] == [row[:2] for row in expected]
            assert all(
                torch.equal(split.images, images) for (*_, images), (*_, split) in zip(expected, found, strict=True)
            )
            assert all(torch.equal(split.labels, shift.test.labels) for *_, split in found)
    assert made == ["contrast"] * 5 + ["shot_noise"] * 5


def test_other_images_are_not_taken_for_these(tmp_path, made, monkeypatch):
    list(shift_of(tmp_path))
    list(shift_of(tmp_path, seed=1))
    list(shift_of(tmp_path, name="cifar100"))
    monkeypatch.setattr(shift_module, "device_kind", lambda device: "some GPU")
    list(shift_of(tmp_path))
    monkeypatch.setattr("harness.store.provenance.code", lambda *modules: "another")
    list(shift_of(tmp_path))
    assert len(made) == 50
    assert len(list((tmp_path / "bank" / "corrupted").glob("*.npy"))) == 4  # those of other code do not pile up


def test_damaged_corrupted_images_are_made_again(tmp_path, made):
    first = [split.images.clone() for *_, split in shift_of(tmp_path)]
    (file,) = (tmp_path / "bank" / "corrupted").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = [split.images for *_, split in shift_of(tmp_path)]
    assert len(made) == 20
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_bank_that_cannot_keep_them_changes_nothing(tmp_path, made):
    expected = [split.images.clone() for *_, split in shift_of(tmp_path)]
    (tmp_path / "blocked").write_text("a file where the folder should be")
    said = []
    shift = Shift(
        {"name": "cifar10", "root": str(tmp_path)}, shift_of(tmp_path).test, tmp_path / "blocked", said.append
    )
    found = [split.images for *_, split in [*shift, *shift]]
    assert all(torch.equal(a, b) for a, b in zip(expected * 2, found, strict=True))
    assert len(made) == 20
    assert len(said) == 1 and said[0].startswith("corrupted test images cannot be kept in the bank")


def test_sets_too_large_to_be_kept_are_made_each_time(tmp_path, made, monkeypatch):
    monkeypatch.setattr(shift_module, "LIMIT_BYTES", 10 * 20 * 3 * 32 * 32 - 1)
    shift = shift_of(tmp_path)
    assert len([*shift, *shift]) == len(made) == 20
    assert not (tmp_path / "bank").exists()


def test_jpeg_is_near_a_real_encoder(images):
    """Grey pictures, where the standard fixes everything but the encoder's rounding."""
    ours = corruptions.corrupt(images[:, :1], corruptions.jpeg, 5, "x")
    for mine, image in zip(ours, images[:, 0], strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=40)
        theirs = torch.from_numpy(np.asarray(Image.open(buffer)).copy())
        assert (mine[0].float() - theirs.float()).abs().mean() < 0.5  # a coefficient may fall on the other side


# Official files ---------------------------------------------------------------------------------------------------


def write_arrays(root, count=20, kinds=("fog", "snow")):
    folder = root / ARRAYS["cifar10"]
    folder.mkdir(parents=True)
    np.save(folder / "labels.npy", np.tile(formats.cycle(count, 10), 5))
    for seed, kind in enumerate(kinds):
        np.save(folder / f"{kind}.npy", formats.pixels(5 * count, 32, seed=seed).transpose(0, 2, 3, 1))
    return folder


def shift_of(root, count=20, name="cifar10", seed=0):
    test = Split(torch.from_numpy(formats.pixels(count, 32, seed=seed)), torch.from_numpy(formats.cycle(count, 10)))
    return Shift({"name": name, "root": str(root)}, test, root / "bank", print)


def test_official_arrays_go_severity_by_severity(tmp_path):
    write_arrays(tmp_path)
    shift = shift_of(tmp_path)
    assert shift.source == "official"
    found = list(shift)
    assert [(kind, severity) for kind, severity, _ in found[4:6]] == [("fog", 5), ("snow", 1)]
    expected = torch.from_numpy(formats.pixels(100, 32, seed=0))
    assert torch.equal(found[1][2].images, expected[20:40])
    assert found[1][2].labels.tolist() == formats.cycle(20, 10).tolist()


def test_published_means_leave_out_the_extra_types(tmp_path):
    write_arrays(tmp_path, kinds=("fog", "saturate", "snow", "speckle_noise"))
    shift = shift_of(tmp_path)
    right = {"fog": 1.0, "saturate": 0.0, "snow": 0.5, "speckle_noise": 0.0}
    kinds = iter([kind for kind, _, _ in shift])

    def predict_split(split):
        count = int(right[next(kinds)] * len(split))
        named = torch.where(torch.arange(len(split)) < count, split.labels, (split.labels + 1) % 10)
        return {"student": 9.0 * torch.nn.functional.one_hot(named, 10).numpy()}

    found = shift_module.measure(shift, predict_split)["student"]
    assert {kind: row["acc"] for kind, row in found["by_type"].items()} == right
    assert found["acc"] == 0.75


def test_without_official_files_the_suite_is_built_in(tmp_path):
    assert shift_of(tmp_path).source == "builtin"


def test_bad_official_files_are_named(tmp_path):
    folder = write_arrays(tmp_path)
    np.save(folder / "fog.npy", formats.pixels(99, 32).transpose(0, 2, 3, 1))
    with pytest.raises(ConfigError, match=r"fog\.npy is an array of \(99, 32, 32, 3\), not of \(100, 32, 32, 3\)"):
        shift_of(tmp_path)
    (folder / "fog.npy").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"fog\.npy cannot be read"):
        shift_of(tmp_path)
    (folder / "fog.npy").unlink()
    (folder / "labels.npy").unlink()
    with pytest.raises(ConfigError, match=r"lacks labels\.npy"):
        shift_of(tmp_path)


def as_floats(folder):
    np.save(folder / "fog.npy", np.load(folder / "fog.npy") / np.float32(255))


def as_archive(folder):
    with (folder / "fog.npy").open("wb") as file:
        np.savez(file, np.load(folder / "snow.npy"))


def as_pipe(folder):
    (folder / "fog.npy").unlink()
    os.mkfifo(folder / "fog.npy")


def labels_of_another_set(folder):
    np.save(folder / "labels.npy", np.tile(formats.cycle(20, 9), 5))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (as_floats, r"fog\.npy is an array of float32, not of bytes"),
        (as_archive, r"fog\.npy cannot be read"),
        (as_pipe, r"fog\.npy is no file"),
        (labels_of_another_set, r"labels\.npy has other labels than the test images"),
    ],
)
def test_official_files_that_are_others_are_refused(change, says, tmp_path):
    """Numbers of the right shape, which would be believed."""
    change(write_arrays(tmp_path))
    with damage.in_time(), pytest.raises(ConfigError, match=says):
        shift_of(tmp_path)


def test_official_tree_of_tiny_imagenet(tmp_path):
    formats.write_tiny_imagenet(tmp_path, classes=3)
    for severity in corruptions.SEVERITIES:
        for k in range(3):
            place = tmp_path / "Tiny-ImageNet-C" / "fog" / str(severity) / f"n{10 + k:08}"
            place.mkdir(parents=True)
            (place / "val_0.JPEG").write_bytes(formats.jpeg(formats.pixels(1, 64)[0]))
    found = list(shift_of(tmp_path, name="tiny_imagenet"))
    assert [severity for _, severity, _ in found] == [1, 2, 3, 4, 5]
    assert found[0][2].images.shape == (3, 3, 64, 64)
    assert found[0][2].labels.tolist() == [0, 1, 2]
    next((tmp_path / "Tiny-ImageNet-C").rglob("5/n00000010/*.JPEG")).unlink()
    with pytest.raises(ConfigError, match="5/n00000010 has no images"):
        list(shift_of(tmp_path, name="tiny_imagenet"))


# Scores -----------------------------------------------------------------------------------------------------------


def test_auroc_is_scikit_learns():
    draw = np.random.default_rng(0)
    known, unknown = draw.integers(0, 9, 50) / 9, draw.integers(0, 7, 30) / 9  # with ties
    expected = roc_auc_score([1] * 50 + [0] * 30, np.concatenate([known, unknown]))
    assert ood.auroc(known, unknown) == pytest.approx(expected)


def test_fpr_at_95_percent():
    known = np.arange(1, 101)
    assert ood.fpr(known, [5, 6, 7, 200]) == 0.75  # 95 of 100 known ones score 6 or more
    assert ood.fpr(known, [0]) == 0.0


def test_aurc_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    assert metrics.aurc(probabilities, [0, 0, 1]) == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert metrics.aurc(probabilities, [1, 0, 0]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    same = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert metrics.aurc(same, [0, 1]) == metrics.aurc(same, [1, 0]) == pytest.approx(0.5)


def test_other_sets_are_brought_to_size_and_channels():
    grey = ood.adapt(torch.full((2, 3, 32, 32), 100, dtype=torch.uint8), 1, 28)
    assert grey.shape == (2, 1, 28, 28)
    assert (grey == 100).all()
    assert ood.adapt(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), 3, 32).shape == (2, 3, 32, 32)


# Whole runs -------------------------------------------------------------------------------------------------------


def test_a_record_has_shift_and_ood(tmp_path, monkeypatch):
    few = {kind: corruptions.STRENGTHS[kind] for kind in (corruptions.contrast, corruptions.shot_noise)}
    monkeypatch.setattr(corruptions, "STRENGTHS", few)
    monkeypatch.setattr("harness.training.data.fashion_mnist.DEBIAN", tmp_path / "nowhere")
    formats.write_fashion_mnist(tmp_path / "data", monkeypatch, train=5010)
    options = {"data__root": str(tmp_path / "data"), "evaluate__ood": ["fashion_mnist"], "evaluate__shift": True}
    record = run(tmp_path, "kd", **options)
    shift, unknown = record["shift"], record["ood"]["fashion_mnist"]
    assert shift["source"] == "builtin"
    for who in ("student", "teacher", "ensemble"):
        assert set(shift[who]) == {"acc", "nll", "brier", "ece", "by_type"}
        assert len(shift[who]["by_type"]) == len(corruptions.STRENGTHS)
        expected = np.mean([found["nll"] for found in shift[who]["by_type"].values()])
        assert shift[who]["nll"] == pytest.approx(expected)
        assert set(unknown[who]) == {f"{m}_{by}" for m in ("auroc", "fpr95") for by in ("confidence", "entropy")}
        assert all(0 <= value <= 1 for value in unknown[who].values())
        assert 0 <= record["metrics"][who]["test"]["aurc"] <= 1


def test_teachers_are_tried_once_for_all_students(tmp_path, monkeypatch):
    monkeypatch.setattr(corruptions, "STRENGTHS", {corruptions.contrast: (0.9, 0.8, 0.7, 0.6, 0.5)})
    monkeypatch.setattr("harness.training.data.fashion_mnist.DEBIAN", tmp_path / "nowhere")
    formats.write_fashion_mnist(tmp_path / "data", monkeypatch, train=5010)
    options = {"data__root": str(tmp_path / "data"), "evaluate__ood": ["fashion_mnist"], "evaluate__shift": True}
    asked = []
    original = shift_module.predict_teachers
    for module in (shift_module, ood):
        monkeypatch.setattr(
            module, "predict_teachers", lambda *given, **more: asked.append(1) or original(*given, **more)
        )
    first = run(tmp_path, "kd", **options)
    assert len(asked) == 5 + 2  # five severities; known and unknown images
    files = sorted((tmp_path / "teachers" / "found").iterdir())
    assert [path.name.split("-")[0] for path in files] == ["ood", "shift"]
    second = run(tmp_path, "ensemble_kd", **options)
    assert len(asked) == 7
    for who in ("teacher", "ensemble"):
        assert first["shift"][who] == second["shift"][who]
        assert first["ood"]["fashion_mnist"][who] == second["ood"]["fashion_mnist"][who]
    assert first["shift"]["student"] != second["shift"]["student"]
    files[1].write_text(files[1].read_text()[:50])  # damaged: computed again
    assert run(tmp_path, "perturbation", **options)["shift"]["teacher"] == first["shift"]["teacher"]
    assert len(asked) == 12


def test_findings_have_another_name_when_anything_changes(tmp_path, monkeypatch):
    teachers = [tmp_path / "a", tmp_path / "b"]
    for teacher in teachers:
        teacher.mkdir()
        (teacher / "student.safetensors").write_bytes(teacher.name.encode())
    computed = []

    def ask(fingerprint="f", about="x", device="cpu"):
        return Findings(tmp_path / "found", provenance.code(), teachers, fingerprint, device)(
            "shift", about, lambda: computed.append(1) or {}
        )

    def counts(**changes):
        before = len(computed)
        ask(**changes)
        return len(computed) - before

    assert [counts(), counts(), counts(fingerprint="g"), counts(about="y"), counts()] == [1, 0, 1, 1, 0]
    assert [counts(device="some GPU"), counts(device="another"), counts(device="some GPU"), counts()] == [1, 1, 0, 0]
    (teachers[1] / "student.safetensors").write_bytes(b"other weights")
    assert counts() == 1
    monkeypatch.setattr("harness.store.provenance.code", lambda *modules: "other code")
    assert counts() == 1


def test_official_files_are_told_apart(tmp_path):
    folder = write_arrays(tmp_path)
    before = shift_of(tmp_path).files()
    assert [name for name, *_ in before] == ["fog.npy", "labels.npy", "snow.npy"]
    np.save(folder / "fog.npy", formats.pixels(100, 32, seed=7).transpose(0, 2, 3, 1))
    assert shift_of(tmp_path).files() != before


def test_missing_other_data_are_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="python -m harness"):
        run(tmp_path, evaluate__ood=["svhn"], data__root=str(tmp_path / "data"))
    assert not (tmp_path / "teachers").exists()


def test_the_same_set_is_no_other_set(tmp_path):
    with pytest.raises(ConfigError, match="no other data set"):
        configure(tmp_path, evaluate__ood=["digits"])
    with pytest.raises(ConfigError, match="did you mean svhn"):
        configure(tmp_path, evaluate__ood=["svnh"])
