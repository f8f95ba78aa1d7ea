"""Runs that would mislead in one table are refused, or marked where they are allowed."""

import json

import pytest

from analysis.records.errors import AnalysisWarning, Mixture
from analysis.records.loading import load
from analysis.records.study import Study
from harness.store.identity import INCIDENTAL
from tests.analysis.synthetic import change, make_run, make_study


@pytest.mark.parametrize(
    "kind, other",
    [
        ("code", {"revision": "b" * 40}),
        ("data", {"fingerprint": "split1", "revision": "a" * 39 + "b"}),
        ("recipe", {"train": {"epochs": 10}}),
        ("teachers", {"teachers": [f"other-m{m}" for m in range(4)], "seed": 1}),
        ("teachers", {"weights": "b" * 64, "seed": 1}),
    ],
)
def test_mixtures_are_refused_with_the_list_and_marked_where_allowed(tmp_path, kind, other):
    seed = other.pop("seed", 1 if kind in ("code", "recipe") else 0)
    first = make_run(tmp_path, "ensemble_kd", 0)
    method = "weight_averaging" if kind == "data" else "ensemble_kd"
    second = make_run(tmp_path, method, seed, **other)
    with pytest.raises(Mixture, match=f"(?s)--allow-mixed.*{kind}") as refused:
        load(tmp_path, allow=())
    hashes = [json.loads((d / "record.json").read_text())["hash"] for d in (first, second)]
    assert all(h in str(refused.value) for h in hashes)
    with pytest.warns(AnalysisWarning, match=f"mixed on request: {kind}"):
        runs = load(tmp_path, allow=("all",))
    assert all(kind in mark for mark in runs["mixed"])
    assert runs.attrs["mixed"]


def test_earlier_records_of_teachers_that_came_to_something_else_are_a_mixture(tmp_path):
    for seed, nll in ((0, 0.5), (1, 0.5001)):
        change(make_run(tmp_path, "kd", seed, weights=None), "metrics.teacher.test.nll", nll)
    with pytest.raises(Mixture, match=r"a teacher that is not one: digits-set0-m0: NLL 0\.500000 \(1 runs"):
        load(tmp_path)


def test_earlier_records_may_stand_beside_those_that_know_the_weights(tmp_path):
    make_run(tmp_path, "kd", 0, weights=None)
    make_run(tmp_path, "kd", 1)
    assert set(load(tmp_path)["mixed"]) == {""}


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        ("provenance.threads", (1, 4), r"cpu, 1 threads \(1 runs: .* \| cpu, 4 threads \(1 runs: "),  # older records
        ("provenance.device", ("NVIDIA V100", "NVIDIA A100"), r"NVIDIA A100 \(1 runs: .* \| NVIDIA V100 \(1 runs: "),
        ("provenance.arithmetic", (["cpu, float32"], ["cpu, float32", "cpu, bf16"]), r"cpu, float32 then cpu, bf16 \("),
    ],
)
def test_other_arithmetic_is_shown_and_marked_and_not_refused(tmp_path, key, values, shown):
    for seed, value in enumerate(values):
        change(make_run(tmp_path, "kd", seed), key, value)
    with pytest.warns(AnalysisWarning, match=f"^mixed: arithmetic in digits x preresnet_tiny: .*{shown}"):
        runs = load(tmp_path)
    assert set(runs["mixed"]) == {"arithmetic"}
    assert runs.attrs["mixed"]


def test_seeds_and_crossed_teacher_sets_are_no_mixture(tmp_path):
    make_study(tmp_path, seeds=range(2), sets=range(2), files=False)
    assert set(load(tmp_path)["mixed"]) == {""}


def test_sets_that_no_seed_crosses_are_refused(tmp_path):
    for seed, number in ((0, 0), (1, 0), (2, 1)):
        make_run(tmp_path, "kd", seed, teacher_set=number)
    with pytest.raises(Mixture, match="not crossed with seeds"):
        load(tmp_path)


def test_a_hash_of_the_code_outweighs_the_revision(tmp_path):
    for seed, revision in enumerate("ab"):
        change(make_run(tmp_path, "kd", seed, revision=revision * 40), "provenance.code", "same")
    assert set(load(tmp_path)["mixed"]) == {""}


def test_another_method_of_other_code_is_a_warning(tmp_path):
    make_run(tmp_path, "kd", 0)
    make_run(tmp_path, "combined", 0, revision="b" * 40)
    with pytest.warns(AnalysisWarning, match="different code"):
        load(tmp_path)


@pytest.mark.parametrize("key", [*INCIDENTAL, "evaluate.diagnostics", "teachers.train.checkpoint_every"])
def test_incidental_configuration_is_no_mixture(tmp_path, key):
    make_run(tmp_path, "kd", 0)
    change(make_run(tmp_path, "kd", 1), f"config.{key}", "other")
    assert set(load(tmp_path, study=Study())["mixed"]) == {""}


def test_an_older_record_without_an_option_is_no_mixture(tmp_path):
    make_run(tmp_path, "kd", 0)
    change(make_run(tmp_path, "kd", 1), "config.data.train", None)
    assert set(load(tmp_path)["mixed"]) == {""}


@pytest.mark.parametrize("key", ["data.padding", "data.train", "train.lr", "teachers.size", "teachers.train.epochs"])
def test_decisive_configuration_is_a_mixture(tmp_path, key):
    make_run(tmp_path, "kd", 0)
    change(make_run(tmp_path, "kd", 1), f"config.{key}", 77)
    with pytest.raises(Mixture, match=key):
        load(tmp_path)


def test_data_are_the_same_for_all_seeds_and_arms(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "kd", seed, fingerprint=f"split{seed}")
    with pytest.raises(Mixture, match=r"data in digits x preresnet_tiny: split0 \(1 runs"):
        load(tmp_path)
