"""What an arm is called."""

import pytest

from analysis.records.declared import parse
from analysis.records.loading import load
from analysis.records.study import Study
from tests.analysis.synthetic import make_run


def test_factors_make_arms_of_a_difference(tmp_path):
    for size in (40, 10):
        make_run(tmp_path, "kd", 0, train={"epochs": size}, defaults=False)
    runs = load(tmp_path, study=Study(factors=("train.epochs",)))
    assert runs["arm"].nunique() == 2
    assert "kd[train.epochs=10]" in set(runs["arm"])


@pytest.mark.parametrize("defaults", [True, False])
def test_arms_are_named_by_what_differs_from_the_default(tmp_path, defaults):
    for seed in range(3):
        make_run(tmp_path, "kd", seed, defaults=defaults)
    make_run(tmp_path, "kd", 0, options={"temperature": 1.0}, defaults=defaults)
    make_run(tmp_path, "combined", 0, options={"temperature": 1.0}, defaults=defaults)
    runs = load(tmp_path)
    assert sorted(runs["arm"].unique()) == ["combined", "kd", "kd[temperature=1.0]"]


def test_a_study_names_its_arms(tmp_path):
    make_run(tmp_path, "combined", 0)
    make_run(tmp_path, "combined", 0, options={"student_term": False})
    study = parse({"arms": {"clean": {"method.name": "combined", "method.student_term": False}}}, "test")
    assert sorted(load(tmp_path, study=study)["arm"]) == ["clean", "combined"]
