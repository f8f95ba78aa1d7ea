"""The declared study: what is refused, and which records declare it."""

import datetime
from pathlib import Path

import pytest

from analysis.records.declared import parse, read_study
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.loading import load
from analysis.records.study import CELLS, Sequential, Study
from tests.analysis.synthetic import make_run


@pytest.mark.parametrize(
    "block, message",
    [
        ({"primry": "nll"}, "unknown keys primry"),
        ({"alpha": 5}, "alpha must lie between 0.00001 and 0.5"),
        ({"alpha": 1e-12}, "alpha must lie between 0.00001 and 0.5"),  # no number of seeds reaches it
        (
            {"families": {"f": {"pairs": [["a", "b"]]}}, "sequential": {"looks": [6, 8]}, "seeds": 12},
            "the last look is at 8 seeds, `seeds` says 12",
        ),
        ({"primary": "speed"}, "no metric named 'speed'"),
        ({"margins": {"nll": -1}}, "margin of nll must be a positive number"),
        ({"test": "z"}, "unknown test 'z'"),
        ({"families": {"f": {"against": "kd", "ladder": ["a", "b"]}}}, "family f needs exactly one of"),
        ({"families": {"f": {"factorial": {"neither": "kd"}}}}, "lacks first, second, both"),
        ({"families": {"f": [["a"]]}}, "pairs are lists"),
        ("nll", "expected a mapping"),
        ({"question": 7}, "question"),
        ({"factors": "teachers.size"}, "factors"),
        ({"arms": {"a": 7}}, "arms"),
        ({"arms": {"a": {"b": datetime.date(2026, 1, 1)}}}, "not made of texts, numbers"),
        ({"families": {"f": {"against": "kd", "arms": "combined"}}}, "arms is a list"),
        ({"families": {"f": {"against": "kd", "arm": ["combined"]}}}, "family f: unknown keys arm"),
        ({"families": {"f": {"ladder": ["kd"]}}}, "at least two arms"),
        ({"families": {"f": {"ladder": ["kd", 7]}}}, "at least two arms"),
        ({"families": {"f": {"ladder": ["kd", "kd"]}}}, "compares an arm with itself"),
        ({"families": {"f": [["kd", "kd"]]}}, "compares an arm with itself"),
        ({"families": {"f": {"against": "kd", "arms": ["kd"]}}}, "compares an arm with itself"),
        ({"families": {"f": {"factorial": dict(zip(CELLS, "abcd", strict=True)) | {"names": ["x", "x"]}}}}, "one name"),
        ({"families": {"f": {"factorial": [1]}}}, "names the arms of its four cells"),
        ({"sequential": [8, 10]}, "sequential"),
        ({"sequential": {}}, "looks are numbers of seeds"),
        ({"sequential": {"looks": [8, 8]}}, "rising numbers of seeds"),
        ({"sequential": {"looks": []}}, "rising numbers of seeds"),
        ({"sequential": {"looks": [1, 4]}}, "looks are numbers of seeds from 2"),
        ({"sequential": {"looks": [8, 9.5]}}, "looks are numbers of seeds"),
        ({"sequential": {"looks": [8], "spending": "all"}}, "unknown spending 'all': choose obrien_fleming or pocock"),
        ({"sequential": {"looks": [8], "statistic": "median"}}, "unknown statistic 'median': choose mean or rank"),
        ({"sequential": {"looks": [8], "look": 3}}, "sequential: unknown keys look"),
        ({"sequential": {"looks": [8]}}, "declares its families"),
    ],
)
def test_a_wrong_study_is_one_clear_line(block, message):
    with pytest.raises(AnalysisError, match=message) as error:
        parse(block, "test.yaml")
    assert "\n" not in str(error.value)


def test_a_sequential_study_declares_its_looks():
    block = {"families": {"f": {"against": "kd"}}, "sequential": {"looks": [8, 10], "statistic": "rank"}}
    assert parse(block, "test").sequential == Sequential((8, 10), "obrien_fleming", "rank")
    assert parse({}, "test").sequential is None


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


BOMB = "\n".join(
    f"{a}: &{a} [{', '.join([f'*{b}'] * 9) if b else 1}]" for a, b in zip("abcdefghij", "\0abcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text, message",
    [
        (BOMB.replace("*\0, " * 8 + "*\0", "1"), "aliases"),
        ("study: &a {question: *a}", "aliases"),
        ("study: !!python/object/apply:os.system [ls]", "constructor"),
        ("study: {alpha: 0.1, alpha: 0.4}", "alpha stands there twice"),
        ("study: {margins: {nll: .nan}}", "margin of nll"),
        ("study: {margins: {nll: .inf}}", "margin of nll"),
        ("study: {alpha: 2020-99-99}", "not valid YAML"),
        ("study: {alpha: " + "9" * 9999 + "}", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("study: {arms: {a: " + "{b: " * 40 + "1" + "}" * 42, "more than 16 levels"),
        ("study: {question: q" + " " * 300_000 + "}", "too large"),
        ("study: [", "not valid YAML"),
        ("", "no such study file|no block"),
        ("- study", "no block"),
    ],
)
def test_study_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(AnalysisError, match=message) as error:
        read_study(path)
    assert "\n" not in str(error.value)


def test_studies_of_the_house_are_read():
    found = [path for path in (Path(__file__).parents[3] / "sweeps").glob("*.yaml") if "study:" in path.read_text()]
    assert found
    assert all(read_study(path).families is not None for path in found)
