"""Teachers that were trained elsewhere: imported, learned from, shown, removed."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model

from harness import bank
from harness.app import run
from harness.evaluation.metrics import evaluate
from harness.run.data import load_images
from harness.run.teachers import find_teachers
from harness.runtime.console import Console
from harness.store.claim import Claim
from harness.store.identity import run_directory, run_hash
from harness.store.imports import import_file, read_import
from harness.store.predictions import read_predictions
from harness.store.record import read_record
from harness.store.submission import write_config
from harness.training import networks
from tests import damage
from tests.planted import plant
from tests.running import configure

MODELS = ("preresnet_tiny", "preresnet8", "wrn10_1")
WHICH = ("data=digits", "teachers.set=7")


def make(model: str, seed: int = 0) -> torch.nn.Module:
    """A network of digits as somebody else has it: pixels that are not normalised yet."""
    return networks.build(model, 10, (0.0,), (1.0,), torch.Generator().manual_seed(seed), 8).network


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three networks' weights, as they are kept elsewhere: bare; of DataParallel in a script's checkpoint; compiled."""
    monkeypatch.chdir(tmp_path)
    bare, parallel, compiled = (make(model, number).state_dict() for number, model in enumerate(MODELS))
    save_file(bare, "bare.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in parallel.items()}}, "script.pt")
    torch.save({f"_orig_mod.{name}": value.double() for name, value in compiled.items()}, "compiled.pth")
    return ["bare.safetensors", "script.pt", "compiled.pth"]


def add(files: list[str], *arguments: str) -> int:
    return bank.main(["add", *files, *WHICH, *arguments])


def teacher(number: int) -> Path:
    (place,) = Path("runs/teachers").glob(f"*-set7-m{number}-*")
    return place


def test_three_networks_teach_one_student(files, capsys):
    assert add(files, f"model={','.join(MODELS)}", "--mean", "0.3", "--sd", "0.4") == 0
    records = [read_record(teacher(number)) for number in range(3)]
    images, _ = load_images(records[0]["config"]["data"], torch.device("cpu"), Console())
    pixels = (images.test.images / 255 - 0.3) / 0.4
    for number, (model, record) in enumerate(zip(MODELS, records, strict=True)):
        with torch.no_grad():
            logits = make(model, number).eval()(pixels).double().numpy()
        answers = read_predictions(teacher(number))[0]["test"].astype(float)
        assert np.abs(answers - (logits - logits.max(1, keepdims=True))).max() < 0.02 * np.abs(answers).max()
        metrics = record["metrics"]["student"]["test"]
        expected = evaluate(logits, images.test.labels.numpy(), metrics["temperature"])
        assert metrics["nll"] == pytest.approx(expected["nll"], rel=1e-5)
        assert record["config"]["model"] == model and record["provenance"]["imported"]["file"] == files[number]
    arguments = ["method=combined", "train=smoke", "train.steps_per_epoch=3", *WHICH[1:], "teachers.size=3"]
    for more in ([], ["data.padding=0", "train.lr=0.1"]):  # whatever the student is trained by
        assert run([*arguments, *more]) == 0
    students = [read_record(place) for place in Path("runs").glob("*-s0-*")]
    assert [student["provenance"]["teachers"] for student in students] == [[teacher(m).name for m in range(3)]] * 2
    assert students[0]["diagnostics"]["dee"] is None  # how many teachers of one kind it is worth, nobody can say
    capsys.readouterr()
    assert bank.main(["list"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "digits" in line]
    assert [[cell.strip() for cell in row.strip("│").split("│")][1:4] for row in rows] == [
        ["7", str(number), model] for number, model in enumerate(MODELS)
    ]
    assert all(re.search(r"│ +2 │ imported from", row) for row in rows)
    assert bank.main(["remove", *WHICH]) == 2 and "has taught 2 of the runs" in capsys.readouterr().err
    assert teacher(0).is_dir() and run([*arguments, "method.temperature=2"]) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("stem.weight"), "it has no stem.weight [8, 1, 3, 3]"),
        (lambda state: state.update(extra=torch.zeros(1)), "which has no extra"),
        (lambda state: state.update({"stem.weight": torch.zeros(8, 3, 3, 3)}), "stem.weight is [8, 3, 3, 3], not"),
        (lambda state: state["classifier.bias"].fill_(torch.nan), "classifier.bias holds values that are no numbers"),
        (lambda state: state.update(note="hello"), "holds no weights by name"),
        (lambda state: state.update({"stem.weight": state["stem.weight"].cfloat()}), "stem.weight is torch.complex64"),
        (lambda state: state.update({"stem.weight": state["stem.weight"].long()}), "stem.weight is torch.int64"),
        (lambda state: state.update({"stem.weight": state["stem.weight"].to("meta")}), "on meta"),
        (lambda state: state.update({"stem.weight": state["stem.weight"].double() + 1e300}), "are no numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_first_key(files, capsys, change, said):
    state = make("preresnet_tiny").state_dict()
    change(state)
    torch.save(state, "changed.pt")
    assert add(["bare.safetensors", "changed.pt"], "model=preresnet_tiny") == 2
    assert said in capsys.readouterr().err and not list(Path("runs").glob("teachers/*"))


def test_what_is_no_file_of_weights_is_refused(files, capsys):
    torch.save(make("preresnet_tiny"), "module.pt")
    content = Path(files[0]).read_bytes()
    Path("cut.safetensors").write_bytes(content[:-20])
    Path("words.pt").write_text("hello")
    os.mkfifo("pipe.pt")
    itself: dict = {}
    itself["model"] = itself
    torch.save(itself, "itself.pt")
    for file, said in {
        "module.pt": "save network.state_dict()",
        "cut.safetensors": "cut.safetensors is no safetensors file",
        "words.pt": "words.pt is no safetensors file",
        "nowhere.pt": "nowhere.pt cannot be read: No such file",
        "pipe.pt": "pipe.pt is no file of weights",
        "itself.pt": "itself.pt holds no weights by name",
    }.items():
        assert add([file], "model=preresnet_tiny") == 2
        found = capsys.readouterr().err
        assert said in found and found.count("\n") == 1
    assert bank.main(["add", files[0], "data=digits", "model=preresnet_tiny"]) == 2
    assert "say which set it is: teachers.set=..." in capsys.readouterr().err
    assert add(files[:1]) == 2 and "say which network it is: model=NAME" in capsys.readouterr().err
    for wrong in ("--sd=0", "--sd=-1", "--mean=nan"):
        assert add(files[:1], "model=preresnet_tiny", wrong) == 2 and "numbers, not" in capsys.readouterr().err
    assert (
        add(files, "model=preresnet_tiny,preresnet8") == 2 and "2 networks are named for 3" in capsys.readouterr().err
    )


def test_an_imported_set_is_nobody_elses(files, capsys):
    """Neither another import, nor a student that wants others, more, or of other images; and damage is said, not mended."""
    assert add(files[:1], "model=preresnet_tiny") == 0
    assert add(files[:1], "model=preresnet_tiny") == 2 and "has a set 7 of data=digits" in capsys.readouterr().err
    student = ["method=kd", "train=smoke", "train.steps_per_epoch=3", "teachers.set=7"]
    for more, said in {
        "teachers.size=2": "was imported with 1 teachers, not 2",
        "teachers.train.epochs=2": "leave out teachers.train",
        "teachers.model=preresnet8": "leave out teachers.model",
        "data.validation=200": "was imported for other images",
    }.items():
        assert run([*student, "teachers.size=1", more]) == 2
        assert said in capsys.readouterr().err and not list(Path("runs").glob("digits-*"))
    weights = teacher(0) / "student.safetensors"
    next(damage.flips(weights.read_bytes(), few=1)).inflict(weights)
    assert run([*student, "teachers.size=1"]) == 2 and "import it again" in capsys.readouterr().err
    assert add(files[1:2], "model=preresnet_tiny") == 2 and add(files[:1], "model=preresnet_tiny") == 0  # mended
    assert run([*student, "teachers.size=1"]) == 0
    shutil.rmtree(next(Path("runs").glob("digits-*-kd-*")))
    assert bank.main(["remove", *WHICH]) == 0 and not list(Path("runs/teachers").glob("*-set7-*"))
    assert read_import(Path("runs/teachers"), "digits", 7) is None
    assert add(files[:1], "model=preresnet_tiny") == 0 and run([*student, "teachers.size=1"]) == 0


def test_a_set_whose_import_nobody_knows_of_any_more_is_not_trained_anew(files, capsys):
    assert add(files[:1], "model=preresnet_tiny") == 0
    said = import_file(Path("runs/teachers"), "digits", 7)
    said.unlink()
    student = ["method=kd", "train=smoke", "train.steps_per_epoch=3", "teachers.size=1"]
    assert run([*student, "teachers.set=7"]) == 2
    assert f"{said} is gone: import it again" in capsys.readouterr().err
    assert run([*student, "teachers.set=8"]) == 0
    assert add(files[:1], "model=preresnet_tiny") == 0 and run([*student, "teachers.set=7"]) == 0


def test_an_import_that_was_cut_short_is_repeated(files, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(bank, "write_import", lambda *arguments: (_ for _ in ()).throw(OSError("disk full")))
        assert add(files[:2], "model=preresnet_tiny,preresnet8") == 2
    assert len(list(Path("runs/teachers").glob("*-set7-*"))) == 2
    assert add(files[:2], "model=preresnet_tiny,preresnet8") == 0


def test_a_trained_set_is_not_imported_over(files, capsys):
    assert run(["method=kd", "train=smoke", "train.steps_per_epoch=3", "teachers.set=7", "teachers.size=1"]) == 0
    assert add(files[:1], "model=preresnet8") == 2 and "has a set 7 of data=digits" in capsys.readouterr().err


def test_pretrained_weights_keep_their_normalisation_and_the_order_of_their_classes(tmp_path, monkeypatch, capsys):
    """torchvision's network as published, of six classes of which the set has three, in another order."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 4)):
        for name in ("ant", "bee", "cat"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (72, 72, 3), np.uint8))
                picture.save(tmp_path / "set" / split / name / f"{number}.png")
    torch.manual_seed(0)
    network = get_model("mobilenet_v3_small", weights=None, num_classes=6).eval()
    save_file(network.state_dict(), "pretrained.safetensors")
    Path("classes.txt").write_text("dog\ncat\nfox\nant\nowl\nbee\n")
    mean, sd = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    given = ["data=folder", "data.root=set", "data.image_size=72", "model=mobilenet_v3_small", "teachers.set=1"]
    normalised = ["--mean", ",".join(map(str, mean)), "--sd", ",".join(map(str, sd))]
    assert bank.main(["add", "pretrained.safetensors", *given, *normalised]) == 2
    assert "classifier.3.weight is [6, 1024], not [3, 1024]; --classes FILE" in capsys.readouterr().err
    assert bank.main(["add", "pretrained.safetensors", *given, *normalised, "--classes", "classes.txt"]) == 0
    (place,) = Path("runs/teachers").glob("*-set1-m0-*")
    record = read_record(place)
    images, _ = load_images(record["config"]["data"], torch.device("cpu"), Console())
    pixels = (images.test.images / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(sd).view(-1, 1, 1)
    with torch.no_grad():
        logits = network(pixels)[:, [3, 5, 1]].double().numpy()
    expected = evaluate(logits, images.test.labels.numpy(), record["metrics"]["student"]["test"]["temperature"])
    assert record["metrics"]["student"]["test"]["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    for text, said in {"dog\ncat\nant": "does not name 'bee'", "ant\nant\nbee\ncat": "names 'ant' twice"}.items():
        Path("classes.txt").write_text(text)
        again = [*given[:-1], "teachers.set=2", "--classes", "classes.txt"]
        assert bank.main(["add", "pretrained.safetensors", *again]) == 2 and said in capsys.readouterr().err


def test_a_set_stays_where_another_of_its_name_or_a_student_is(files, tmp_path, capsys):
    """Folders of images have one name and many roots; who is being trained has no record that names its teachers."""
    rng = np.random.default_rng(0)
    for place in ("one", "other"):
        for split, label in itertools.product(("train", "test"), range(10)):
            (tmp_path / place / split / str(label)).mkdir(parents=True)
            for number in range(3):
                picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
                picture.save(tmp_path / place / split / str(label) / f"{number}.png")
    state = networks.build("preresnet_tiny", 10, (0.0,) * 3, (1.0,) * 3, torch.Generator(), 8).network.state_dict()
    save_file(state, "colour.safetensors")
    which = ["data=folder", "data.image_size=8", "teachers.set=7"]
    assert bank.main(["add", "colour.safetensors", "model=preresnet_tiny", *which, "data.root=one"]) == 0
    assert bank.main(["remove", *which, "data.root=other"]) == 2 and "has no set 7" in capsys.readouterr().err
    assert read_import(Path("runs/teachers"), "folder", 7) is not None and teacher(0).is_dir()
    student = Path("runs/folder-preresnet_tiny-kd-s0-000000000000")
    with Claim(student):
        assert bank.main(["remove", *which, "data.root=one"]) == 2 and "is being worked on" in capsys.readouterr().err
    assert bank.main(["remove", *which, "data.root=one"]) == 0 and not teacher_places()


def teacher_places() -> list[Path]:
    return list(Path("runs/teachers").glob("*-set7-*"))


def test_names_of_data_sets_may_begin_alike(files):
    """A teacher's record says whose it is, where a name does not."""
    assert add(files[:1], "model=preresnet_tiny") == 0
    place = teacher(0)
    own = read_record(place)["config"]["data"]
    assert find_teachers(place.parent, own, 7) == [place]
    like = place.rename(place.with_name(place.name.replace("digits-", "digits-b-")))
    assert find_teachers(like.parent, {**own, "name": "digits-b"}, 7) == []
    assert find_teachers(like.parent, own, 7) == [like]


def test_a_set_stays_while_a_run_waits_to_learn_from_it(files, capsys):
    """In a queue, or stopped; no claim tells of it, and no record who taught it. Those of another set are none."""
    assert add(files[:1], "model=preresnet_tiny") == 0
    waiting, other = (configure(Path("runs"), teachers__set=number, teachers__size=1) for number in (7, 8))
    for config in (waiting, other):
        run_directory(config).mkdir(parents=True)
        write_config(run_directory(config), config)
    assert bank.main(["remove", *WHICH]) == 2 and "has not ended" in capsys.readouterr().err
    plant(run_directory(waiting), waiting, "interrupted")
    assert bank.main(["remove", *WHICH]) == 2 and "has not ended" in capsys.readouterr().err
    assert teacher(0).is_dir()
    plant(run_directory(waiting), waiting, "failed")
    assert bank.main(["remove", *WHICH]) == 0


def test_a_record_that_does_not_tell_is_named_and_may_need_every_set(files, capsys):
    """A student's of a newer version, of wrong types, or in a teacher's place."""
    assert add(files[:1], "model=preresnet_tiny") == 0
    config = configure(Path("runs"))
    student = run_directory(config)
    plant(Path(f"runs/teachers/digits-x-set1-m0-{run_hash(config)}"), config)
    record = plant(student, config, "failed") | {"version": 1}
    for changes, said in (
        ({"version": 99}, "is of version 99"),
        ({"digest": None, "provenance": {"teachers": 7}}, "teachers"),
        ({"digest": None, "provenance": {"imported": 7}}, "imported"),
    ):
        (student / "record.json").write_text(json.dumps(record | changes))
        capsys.readouterr()
        assert bank.main(["list"]) == 0
        shown = capsys.readouterr().out
        assert said in shown and "is of a student" in shown and "bare.safetensors" in shown
        assert bank.main(["remove", *WHICH]) == 2 and said in capsys.readouterr().err
        assert teacher(0).is_dir()
    shutil.rmtree(student)
    assert bank.main(["remove", *WHICH]) == 0
