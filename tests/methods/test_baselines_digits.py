"""The field's baselines on digits: each learns from one bank of teachers, and its record says what it took."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

import methods
from harness import streams
from harness.config import ConfigError
from harness.config.options import DATA, Train
from harness.run.network import read_network
from harness.store.identity import run_directory
from harness.sweep.summary import sweep_table
from harness.training import networks
from harness.training.data import load
from harness.training.inference import predict
from harness.training.trainer import Trainer
from methods.method import Teachers
from tests.running import configure, run

FLOOR = 0.5  # of validation images; a tenth is chance
EPOCHS = {"end2": 16, "kd_mixup": 12, "latentbe_mixup": 12, "batch_ensemble": 14, "lskd": 12}  # of those that are slow
RATES = {"end2": 0.03}  # at the others' rate its precision runs away
DATASET = load(asdict(DATA["digits"]))


def build(seed):
    return networks.build("preresnet_tiny", DATASET.classes, DATASET.mean, DATASET.sd, streams.generator(seed, "init"))


def train(name, teachers, seed, epochs):
    """A method's deployed network, of the best epoch."""
    torch.set_num_threads(1)
    recipe = asdict(Train(epochs=epochs, batch_size=50, lr=RATES.get(name, 0.1), warmup_epochs=1))
    trainer = Trainer(methods.load(name)(), DATASET, Teachers(teachers), recipe, padding=1, flip=False, seed=seed)
    training = trainer.run(trainer.start(build(seed)))
    training.student.load_state_dict(training.best.student)
    return trainer.deploy(training.student)


@pytest.fixture(scope="module")
def teachers():
    return [train("supervised", [], f"teacher/0/{m}", 8) for m in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.BASELINES)
def test_every_baseline_learns(name, teachers):
    count = methods.load(name).teachers
    network = train(name, teachers[:count], 0, EPOCHS.get(name, 9))
    right = predict(network, DATASET.validation).argmax(1) == DATASET.validation.labels
    assert float(right.double().mean()) > FLOOR


def test_a_deep_ensemble_is_its_teachers_and_takes_no_step(tmp_path):
    record = run(tmp_path, "deep_ensemble")
    metrics, cost = record["metrics"], record["cost"]
    for split, values in metrics["student"].items():
        for name in ("acc", "nll", "nll_ts", "brier"):  # teachers' logits are kept in half precision
            assert values[name] == pytest.approx(metrics["ensemble"][split][name], rel=1e-3, abs=2e-3), (split, name)
    assert (cost["epochs"], cost["step_passes"], cost["inference_passes"], cost["device_s"]) == (0, 0, 2, 0)
    assert record["selection"]["epoch"] == 0 and record["diagnostics"]["dee"] == pytest.approx(2, abs=0.1)
    table = sweep_table([record, run(tmp_path, "kd")])  # where it is no rival of a student of one pass
    assert list(table.columns[0].cells)[:2] == ["deep_ensemble (2 passes)", "kd"]
    assert not any("[bold]" in cell for column in table.columns for cell in column.cells)
    config = configure(tmp_path, "deep_ensemble")
    network = read_network(run_directory(config), config, DATASET)
    assert sum(p.numel() for p in network.parameters()) == cost["parameters"]
    with pytest.raises(ConfigError, match=r"takes no teachers\.model"):
        run(tmp_path, "deep_ensemble", teachers__model="preresnet8")


def test_a_deep_ensemble_averages_no_steps_that_it_does_not_take(tmp_path):
    """By a recipe of which its teachers' weights are a mean; batch norm is theirs, too."""
    metrics = run(tmp_path, "deep_ensemble", train__average="swa")["metrics"]
    for split, values in metrics["student"].items():
        assert values["nll"] == pytest.approx(metrics["ensemble"][split]["nll"], rel=1e-3)


def test_a_record_says_that_compute_was_matched(tmp_path):
    """Of 6 epochs of steps of 5 passes at M = 2, where weight averaging makes 8."""
    cost = run(tmp_path, "function_matching", train__epochs=6)["cost"]
    assert (cost["epochs"], cost["step_passes"], cost["inference_passes"]) == (10, 5, 1)
    assert (
        len(
            (run_directory(configure(tmp_path, "function_matching", train__epochs=6)) / "history.jsonl")
            .read_text()
            .splitlines()
        )
        == 10
    )


def test_end2_is_told_how_far_it_is(tmp_path):
    method = methods.load("end2")()
    recipe = asdict(Train(epochs=2, batch_size=50, warmup_epochs=0, steps_per_epoch=2))
    seen = []
    trainer = Trainer(
        method, DATASET, Teachers([build(1)]), recipe, 1, False, 0, stop=lambda: seen.append(method.progress)
    )
    trainer.run(trainer.start(build(0)))
    assert [*seen, method.progress] == [0, 0, 0.25, 0.5, 0.75]
