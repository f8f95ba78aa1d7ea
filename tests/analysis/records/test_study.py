"""The declared study: what is refused, and which records declare it."""

import pytest

from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.loading import load
from analysis.records.study import Study, parse
from tests.analysis.synthetic import make_run


@pytest.mark.parametrize(
    "block, message",
    [
        ({"primry": "nll"}, "unknown keys primry"),
        ({"alpha": 5}, "alpha must lie between 0 and 1"),
        ({"primary": "speed"}, "no metric named 'speed'"),
        ({"margins": {"nll": -1}}, "margin of nll must be a positive number"),
        ({"test": "z"}, "unknown test 'z'"),
        ({"families": {"f": {"against": "kd", "ladder": ["a", "b"]}}}, "family f needs exactly one of"),
        ({"families": {"f": {"factorial": {"neither": "kd"}}}}, "lacks first, second, both"),
        ({"families": {"f": [["a"]]}}, "pairs are lists"),
        ("nll", "expected a mapping"),
    ],
)
def test_a_wrong_study_is_one_clear_line(block, message):
    with pytest.raises(AnalysisError, match=message) as error:
        parse(block, "test.yaml")
    assert "\n" not in str(error.value)


def test_several_studies_need_a_choice(tmp_path):
    for seed, question in enumerate("ab"):
        make_run(tmp_path, "kd", seed, study={"question": question})
    with pytest.raises(AnalysisError, match="2 different studies"):
        load(tmp_path)
    assert len(load(tmp_path, study=Study())) == 2


def test_runs_from_outside_the_study_are_counted(tmp_path):
    make_run(tmp_path, "kd", 0, study={"question": "a"})
    make_run(tmp_path, "kd", 1)
    with pytest.warns(AnalysisWarning, match="1 of 2 runs were made outside"):
        load(tmp_path)


def test_a_study_may_nest_its_arms():
    nested = parse({"arms": {"clean": {"method": {"name": "combined", "student_term": False}}}}, "test")
    assert nested.arms == {"clean": {"method.name": "combined", "method.student_term": False}}
