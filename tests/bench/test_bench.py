"""The benchmark runs, its naive forms compute the same, and its floors are the passes that a step makes.

No test looks at a time: machines differ.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import methods
from harness import streams
from harness.bench import measurement, naive, subjects, trace
from harness.bench.__main__ import main
from harness.config.options import TRAIN
from harness.training.data import Dataset, Split
from harness.training.networks import build
from harness.training.trainer import Trainer
from methods.method import Method, Teachers
from tests.pretended_gpu import pretending, waiting

MEMBERS = 3
ALL = ["supervised", *methods.groups()["all"]]
TRAINED = [*ALL, *(name for name in methods.BASELINES if name not in ALL and methods.load(name).trained)]


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    """A device's peak takes seconds to measure; here, nobody asks how high it is."""
    monkeypatch.setitem(measurement.PRODUCTS, "cpu", 64)


@pytest.fixture(scope="module")
def data():
    stream = torch.Generator().manual_seed(1)
    images = torch.randint(256, (60, 1, 8, 8), generator=stream, dtype=torch.uint8)
    split = Split(images, torch.randint(5, (60,), generator=stream))
    return Dataset(5, (0.5,), (0.25,), split, split, split)


def network(data, seed):
    made = build("preresnet_tiny", data.classes, data.mean, data.sd, streams.generator(seed, "init"))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-2  # so that float64 trajectories stay together
    return made.double()


def losses(method: Method, data, steps: int = 6) -> list[float]:
    """Of the first steps, in float64."""
    count = MEMBERS if method.teachers is None else method.teachers
    teachers = Teachers([network(data, m) for m in range(count)])
    recipe = {**asdict(TRAIN["digits"]), "batch_size": 10, "warmup_epochs": 0}
    trainer = Trainer(method, data, teachers, recipe, padding=1, flip=True, seed=0)
    training = trainer.start(network(data, "student"))
    training.student.train()
    found = []
    for batch in trainer.batches.epoch(0):
        doubled = type(batch)(batch.images.double(), batch.labels, batch.views)
        found.append(float(trainer.take_step(training, doubled)["loss"].detach()))
    return found[:steps]


@pytest.mark.parametrize("name", ["weight_averaging", "perturbation", "combined"])
def test_naive_forms_compute_the_same(data, name):
    ours, theirs = losses(methods.load(name)(), data), losses(naive.build(name), data)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert len(set(ours)) == 6


def test_methods_without_shared_work_have_no_naive_form():
    assert [name for name in ALL if naive.build(name) is None] == ["supervised", "kd", "ensemble_kd"]


def test_floors_are_those_of_the_cost_model():
    passes = {name: methods.load(name)().passes(4) for name in ALL}
    assert passes == {
        **{"supervised": 3, "kd": 4, "ensemble_kd": 7},
        **{"weight_averaging": 16, "perturbation": 10, "combined": 22},
    }
    assert methods.load("combined")(student_term=False).passes(4) == 19


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_makes_the_passes_of_its_floor(data, name):
    """Operations of a step by those of one forward pass, first layer aside (its input gradient is not always needed)."""
    options = subjects.Options(model="preresnet14", batch=10, teachers=MEMBERS, classes=5, size=8, channels=1)
    bank = [
        build("preresnet14", data.classes, data.mean, data.sd, streams.generator(m, "init")) for m in range(MEMBERS)
    ]
    with measurement.FlopCounter() as counter:
        bank[0](torch.zeros(10, 1, 8, 8))
    method = methods.load(name)()
    subject = subjects.Subject(name, method, options, data, bank)
    assert measurement.count_flops(subject) / counter.total == pytest.approx(method.passes(MEMBERS), rel=0.02)


def test_what_is_measured_is_shown_where_it_cannot_be_written(capsys, tmp_path):
    options = ["model=preresnet8", "batch=4", "size=8", "classes=3", "rounds=2", "methods=kd", "device=cpu", "--json"]
    (tmp_path / "file").touch()
    assert main([*options, "--output", str(tmp_path / "file" / "bench.json")]) == 1
    said = capsys.readouterr()
    assert "error: cannot write to" in said.err
    assert json.loads(said.out)["methods"]
    assert main(["--acceptance", str(tmp_path / "file"), "--small"]) == 1
    assert capsys.readouterr().err == f"error: cannot write to {tmp_path / 'file'}: File exists\n"


def test_one_json_object_says_everything(capsys, tmp_path):
    options = ["model=preresnet8", "batch=4", "size=8", "classes=3", "teachers=2", "rounds=2", "methods=kd,combined"]
    output, traces = tmp_path / "bench.json", tmp_path / "traces"
    status = main([*options, "device=cpu", "--json", "--naive", "--output", str(output), "--profile", str(traces)])
    assert status == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(output.read_text())
    rows = {row["method"]: row for row in result["methods"]}
    assert list(rows) == ["supervised", "kd", "combined", "combined (naive)"]
    assert rows["combined"]["floor"] == pytest.approx(14 / 3)
    for row in rows.values():
        assert row["gap"] == pytest.approx(row["ratio"] / row["floor"])
        assert row["images_per_s"] == pytest.approx(4000 / row["step_ms"])
        assert row["pipeline_share"] > 0 and 0 <= row["host_share"] < 1 and row["memory_bytes"] >= 0
    assert rows["kd"]["waits"] == 0, "a step reads a number out of a tensor: on a GPU it would wait for it"
    assert rows["combined"]["waits"] == 1, "the draw of a pair, on the CPU"
    assert sorted(path.stem for path in traces.iterdir()) == sorted(name.replace(" ", "_") for name in rows)


@pytest.mark.slow
def test_the_ladder_climbs(capsys):
    options = ["model=preresnet8", "batch=4", "size=8", "classes=3", "teachers=2", "rounds=2", "methods=supervised"]
    assert main([*options, "device=cpu", "--ladder"]) == 0
    printed = capsys.readouterr().out
    assert (
        "compiled instead" in printed and "captured" not in printed and "as a multiple of the first column" in printed
    )


def test_naive_forms_stand_on_the_first_rung_and_the_fastest(tmp_path):
    options = ["model=preresnet8", "batch=4", "size=8", "classes=3", "teachers=2", "rounds=2", "device=cpu"]
    output = tmp_path / "ladder.json"
    flags = ["--ladder", "--rungs", "1,2,3", "--naive", "--output", str(output)]
    assert main([*options, *flags, "methods=kd,combined"]) == 0
    results = json.loads(output.read_text())
    assert [result["options"]["precision"] for result in results.values()] == ["tf32", "tf32", "bfloat16"]
    rows = {rung: {row["method"]: row for row in result["methods"]} for rung, result in results.items()}
    fastest = max(rows, key=lambda rung: rows[rung]["combined"]["images_per_s"])
    assert {rung for rung in rows if "combined (naive)" in rows[rung]} == {"eager TF32", fastest}
    for found in rows.values():
        assert list(found)[:3] == ["supervised", "kd", "combined"] and found["combined"]["flops"] > 0


def test_a_gpu_would_be_measured_without_a_wait_in_any_step(tmp_path, monkeypatch):
    """On a pretended one: that all calls of CUDA are made as they should be, and naive forms wait for nothing either."""
    monkeypatch.setitem(measurement.PRODUCTS, "cuda", 8)
    on_cpu = functools.partial(profile, activities=[ProfilerActivity.CPU])
    monkeypatch.setattr(trace, "profile", lambda activities: on_cpu())
    output = tmp_path / "bench.json"
    options = ["model=preresnet8", "batch=4", "size=8", "classes=3", "teachers=2", "rounds=2", "methods=combined"]
    with pretending() as gpu:
        assert (
            main([*options, "device=cuda", "capture=false", "precision=tf32", "--naive", "--output", str(output)]) == 0
        )
    rows = {row["method"]: row for row in json.loads(output.read_text())["methods"]}
    assert list(rows) == ["supervised", "combined", "combined (naive)"]
    assert all(row["waits"] == 0 and row["graphs_bytes"] == 0 and row["flops"] > 0 for row in rows.values())
    # What an epoch begins with, and the clock, are not of a step.
    steps = ("methods/", "harness/bench/naive.py", "harness/training/trainer.py")
    assert [str(event) for event in waiting(gpu.events) if event.line.startswith(steps)] == []


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("model", "no OPTION=VALUE"),
        ("colour=red", "colour"),
        ("batch=many", "batch"),
        ("methods=kd,alchemy", "unknown method 'alchemy'"),
        ("precision=bf16", "precision is one of float32, tf32, bfloat16"),
        ("compile=fast", "compile is one of"),
        ("rounds=1", "rounds must be at least 2"),
        ("model=vgg", "vgg"),
        ("--ladder --rungs 1,7", "no '7'"),
    ],
)
def test_options_that_mean_nothing_are_one_line(argument, said, capsys):
    assert main(["device=cpu", "size=8", *argument.split()]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and said in error and len(error.splitlines()) == 1


def small(seed: int) -> nn.Module:
    """Of the fewest layers, so that compiling takes seconds."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"compile": "default"}, {"channels_last": True}], ids=["compiled", "channels_last"])
@pytest.mark.parametrize("name", ["kd", "combined"])
def test_faster_steps_are_the_same_steps(data, name, change):
    def run(changes):
        method = methods.load(name)()
        recipe = {**asdict(TRAIN["digits"]), "batch_size": 10, "warmup_epochs": 0, **changes}
        teachers = Teachers([small(m) for m in range(2)][: method.teachers])
        trainer = Trainer(method, data, teachers, recipe, padding=1, flip=True, seed=0)
        training = trainer.start(small(9))
        training.student.train()
        found = [float(trainer.take_step(training, batch)["loss"].detach()) for batch in trainer.batches.epoch(0)]
        return found, trainer.deploy(training.student)

    (plain, network), (faster, deployed) = run({}), run(change)
    assert faster == pytest.approx(plain, rel=1e-3)
    assert type(deployed) is type(network)
    assert deployed.state_dict().keys() == network.state_dict().keys()
