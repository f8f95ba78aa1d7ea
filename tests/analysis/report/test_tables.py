"""Tables: right numbers, traceable."""

import re

import numpy as np
import pandas as pd
import pytest

from analysis.records.declared import parse
from analysis.records.errors import AnalysisError
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.summary import summarise
from analysis.report.tables.ablation import ablation, cross
from analysis.report.tables.costs import costs
from analysis.report.tables.images import image_tables
from analysis.verdicts.images import compare_images
from harness.store.record import read_record
from tests.analysis.synthetic import change, make_run, make_study


def test_cells_are_mean_and_sd_of_the_runs_named(runs, view):
    table = view.tables[0]
    labels = [row[0] for row in table.rows]
    assert labels == [
        "(one teacher)", "(teacher ensemble)", "kd", "ensemble_kd", "weight_averaging", "perturbation",
        "combined",
        "combined[student_term=false]",
    ]  # fmt: skip
    for row, hashes in zip(table.rows[2:], table.runs[2:], strict=True):
        mine = runs.set_index("run").loc[hashes]
        assert set(mine["arm"]) == {row[0]}
        assert row[1] == str(len(mine)) == "8"
        assert row[3].removesuffix(" ~") == f"{mine['nll'].mean():.4f} ± {mine['nll'].std(ddof=1):.4f}"


def test_best_is_bold_and_the_indistinguishable_marked(view):
    table = view.tables[0]
    column = table.columns.index("NLL")
    bold = [table.rows[i][0] for i, j in table.bold if j == column]
    assert bold == ["combined"]
    assert not any("~" in row[column] for row in table.rows)  # eight clear seeds separate all from the best


def bold_in(table, name):
    column = table.columns.index(name)
    return [table.rows[i][0] for i, j in sorted(table.bold) if j == column]


@pytest.mark.parametrize(
    ("nll", "bold"),
    [
        ({"kd": (0.3250, 0.3250), "combined": (0.2775, 0.2775)}, ["combined"]),
        ({"kd": (0.27751, 0.27749), "combined": (0.27752, 0.27749), "perturbation": (0.4, 0.4)}, ["kd", "combined"]),
        ({"kd": (0.3250, 0.3250), "combined": (0.2775, None)}, ["combined"]),  # of the cell that is shown
        ({"kd": (0.3, 0.3), "combined": (0.30001, 0.3)}, []),
        ({"kd": (0.3, 0.3)}, []),
    ],
)
def test_bold_is_the_best_cell_that_is_printed(tmp_path, nll, bold):
    """In both kinds of tables, and n is said where a cell has fewer runs."""
    rows = [
        {"arm": arm, "seed": seed, "nll": value, "data": data, "status": "done", "model": "m", "run": f"{arm}{seed}{data}"}
        for data in ("one", "two") for arm, values in nll.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).assign(mixed="", teacher_set=0, config=[{}] * len(rows), teacher_size=4.0)
    table = ablation(frame, Study(), columns=("nll",))[0]
    across = cross(frame, Study())
    assert bold_in(table, "NLL") == bold_in(across, "one x m") == bold_in(across, "two x m") == bold
    few = [arm for arm, values in nll.items() if None in values]
    for shown, name in ((table, "NLL"), (across, "two x m")):
        column = shown.columns.index(name)
        assert [row[0] for row in shown.rows if "(n=1)" in row[column]] == few


def test_with_few_seeds_nothing_is_distinguishable(small_folder):
    table = summarise(load(small_folder), Study()).tables[0]
    column = table.columns.index("NLL")
    marked = [row[0] for row in table.rows[2:] if row[column].endswith("~")]
    assert len(marked) == 5


def test_baseline_column_agrees_with_the_contrasts(view):
    by = {c.variant: c for c in view.found if c.family == "variants" and c.metric == "nll"}
    for row in view.tables[0].rows[2:]:
        if row[0] != "ensemble_kd":
            assert row[-1] == f"({by[row[0]].verdict})"
            assert row[-3].startswith(f"{by[row[0]].difference:+.4f} [")


def test_switches_compare_one_factor_with_the_default(view):
    table = next(t for t in view.tables if "one switch" in t.title)
    assert [row[0] for row in table.rows] == ["combined[student_term=false] - combined"]


def test_costs(tmp_path):
    make_run(tmp_path, "ensemble_kd", 0, files=False)
    make_run(tmp_path, "combined", 10, files=False)
    table = costs(load(tmp_path), Study())[0]
    by = {row[0]: row for row in table.rows}
    assert by["combined"][-1] == "2.00"  # 20 device seconds against 10
    assert by["combined"][table.columns.index("peak memory MiB")] == "384"
    assert "device-hours" in table.columns[2]
    assert "Peak memory on a CPU is that of the process, with all runs that it made before." in table.notes


def references(runs, study):
    """The rows above the arms: label -> cells by column."""
    table = ablation(runs, study, [])[0]
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0].startswith("(")}


def test_teachers_are_taken_from_a_run_that_has_them(tmp_path):
    """An arm that knows no teachers may come first in a teacher set."""
    directory = make_run(tmp_path, "a_baseline", 0, files=False)
    change(directory, "metrics", {"student": read_record(directory)["metrics"]["student"]})
    make_run(tmp_path, "kd", 0, files=False)
    make_run(tmp_path, "kd", 0, teacher_set=1, files=False)
    rows = references(load(tmp_path), Study())
    assert list(rows) == ["(one teacher)", "(teacher ensemble)"]
    assert all(row["n"] == "2" and "±" in row["NLL"] for row in rows.values())


def test_ensembles_of_two_sizes_have_a_row_each(tmp_path):
    for size, nll in ((4, 0.25), (8, 0.125)):
        directory = make_run(tmp_path / str(size), "kd", 0, files=False)
        change(change(directory, "config.teachers.size", size), "metrics.ensemble.test.nll", nll)
    study = Study(factors=("teachers.size",))
    rows = references(load(tmp_path, study=study), study)
    assert rows["(teacher ensemble, teachers.size=4)"]["NLL"] == "0.2500"
    assert rows["(teacher ensemble, teachers.size=8)"]["NLL"] == "0.1250"


def test_several_data_sets_have_a_table_each_and_a_cross_table(tmp_path):
    for data in ("digits", "letters"):
        make_study(tmp_path / data, seeds=range(2), data=data, fingerprint=data, files=False, clean=False)
    found = summarise(load(tmp_path), Study())
    titles = [t.title for t in found.tables]
    assert titles[:2] == ["digits x preresnet_tiny", "letters x preresnet_tiny"]
    cross = next(t for t in found.tables if "across" in t.title)
    assert cross.columns == ["arm", "digits x preresnet_tiny", "letters x preresnet_tiny"]
    assert len(found.verdicts) == 1  # two seeds decide nothing: said once, not once a comparison and place


def test_allowed_mixtures_are_marked_in_the_table(tmp_path):
    make_run(tmp_path, "kd", 0, files=False)
    make_run(tmp_path, "kd", 1, train={"epochs": 3}, files=False)
    with pytest.warns(UserWarning, match="mixed"):
        runs = load(tmp_path, allow=("recipe",))
    table = summarise(runs, Study()).tables[0]
    assert table.rows[-1][0] == "kd *"
    assert any(note.startswith("* mixes: recipe") for note in table.notes)


def test_a_capped_deep_ensemble_equivalent_is_a_lower_bound(tmp_path):
    for seed in range(2):
        directory = make_run(tmp_path, "kd", seed, diagnostics=True, files=False)
        if seed:
            change(directory, "diagnostics.dee", 4)
    table = summarise(load(tmp_path), Study()).tables[1]
    assert table.rows[-1][table.columns.index("DEE")] == ">= 2.85 ± 1.63"


def test_failures_and_missing_arms_are_said(tmp_path):
    make_run(tmp_path, "kd", 0, files=False)
    make_run(tmp_path, "kd", 1, status="failed")
    study = parse({"families": {"ladder": {"ladder": ["kd", "combined"]}}}, "records")
    text = " ".join(summarise(load(tmp_path), study).lines)
    assert "1 runs did not end well" in text
    assert "Declared but without finished runs: combined" in text
    assert "nothing to compare" in text


def test_images_on_which_two_arms_disagree(runs, study_folder):
    found = compare_images(runs, "combined", "kd")
    assert found.correct_variant.shape == (8, 400)
    by_run = runs.set_index("run")
    accuracy = [by_run.loc[found.runs[2 * i], "acc"] for i in range(8)]
    np.testing.assert_allclose(found.correct_variant.mean(1), accuracy)
    first, second = image_tables(found, most=5)
    assert len(first.rows) == 9
    a, b = found.correct_variant[0], found.correct_reference[0]
    assert first.rows[0][1:3] == [str((a & ~b).sum()), str((b & ~a).sum())]
    assert "the last is about new seeds and new images, crossed" in first.notes[0]
    assert len(second.rows) == 5
    image, _, right, wrong = second.rows[0]
    assert right == f"{found.correct_variant[:, int(image)].sum()}/8"
    assert wrong == f"{found.correct_reference[:, int(image)].sum()}/8"


def test_published_numbers_stand_beside_ours(tmp_path):
    """Beside the table of their data set and network alone, with whether our runs would have predicted their mean."""
    published = {
        "source": "Somebody, 2020",
        "data": "digits",
        "model": "preresnet_tiny",
        "arms": {"kd": {"nll": [0.31, 0.33], "acc": [0.95, 0.95]}, "combined": {"nll": [0.2, 0.3, 0.4]}},
    }
    for seed, nll in enumerate((0.30, 0.32, 0.34)):
        make_run(tmp_path, "kd", seed, metrics={"nll": nll, "acc": 0.9 + seed / 1000}, study={"published": published})
        make_run(tmp_path, "kd", seed, metrics={"nll": nll}, study={"published": published}, data="fashion_mnist")
    runs = load(tmp_path)
    study = parse({"published": published}, "here")
    digits, _ = (table for table in ablation(runs, study) if "further" not in table.title)
    rows = {row[0]: dict(zip(digits.columns, row, strict=True)) for row in digits.rows}
    # 0.32 +- t(2) .02 sqrt(1/3 + 1/2) = 0.32 +- 0.0786 holds 0.32; 0.901 +- 0.0039 does not hold 0.95.
    assert rows["(published kd)"]["NLL"] == "0.3200 ± 0.0141 (inside)" and rows["(published kd)"]["n"] == "2"
    assert rows["(published kd)"]["ACC %"] == "95.00 ± 0.00 (outside)" and rows["(published kd)"]["ECE"] == "-"
    assert rows["(published combined)"]["NLL"] == "0.3000 ± 0.1000"  # an arm without runs predicts nothing
    assert any("Somebody, 2020" in note for note in digits.notes)
    assert sum("published" in row[0] for table in ablation(runs, study) for row in table.rows) == 2


@pytest.mark.parametrize(
    ("published", "said"),
    [
        ({"source": "x"}, "published"),
        ({"source": "x", "data": "d", "model": "m", "arms": {"kd": {"nll": 0.3}}}, "metric: [a value a run]"),
        ({"source": "x", "data": "d", "model": "m", "arms": {"kd": {"nll": []}}}, "metric: [a value a run]"),
        ({"source": "x", "data": "d", "model": "m", "arms": {"kd": {"speed": [1.0]}}}, "no metric named 'speed'"),
        ({"source": "x", "data": "d", "model": "m", "arms": {}, "page": 3}, "unknown keys page"),
        *(
            (
                {"source": "x", "data": "d", "model": "m", "arms": {"kd": {name: [0.5, value]}}},
                f"{value:g} is no {name}",
            )
            for name, value in {"acc": 81.08, "ece": 13.6, "brier": 28.0, "nll": -1.0, "shift_acc": 55.0}.items()
        ),
    ],
)
def test_published_numbers_that_are_none_are_refused(published, said):
    with pytest.raises(AnalysisError, match=re.escape(said)):
        parse({"published": published}, "here")


def test_published_teachers_stand_beside_ours_by_teacher_set(tmp_path):
    """0.5 +- t(1) .0141 sqrt(1/2 + 1) = 0.5 +- 0.22 holds 0.6, and not 0.8."""
    arms = {"teacher ensemble": {"nll": [0.6]}, "one teacher": {"nll": [0.8]}}
    published = {"source": "Somebody, 2020", "data": "digits", "model": "preresnet_tiny", "arms": arms}
    for seed in range(3):
        for teacher_set in (0, 1):
            make_run(tmp_path, "kd", seed, teacher_set=teacher_set)
    runs = load(tmp_path)
    runs["teacher_nll"] = runs["ensemble_nll"] = np.where(runs["teacher_set"] == 0, 0.49, 0.51)
    table = ablation(runs, parse({"published": published}, "here"))[0]
    rows = {row[0]: row[table.columns.index("NLL")] for row in table.rows}
    assert (
        rows["(published teacher ensemble)"] == "0.6000 (inside)"
        and rows["(published one teacher)"] == "0.8000 (outside)"
    )


def test_students_of_several_passes_stand_apart(tmp_path):
    """Below the others, with their cost, and never the best."""
    for seed in (0, 1, 2):
        change(make_run(tmp_path, "hydra", seed, metrics={"nll": 0.1}), "cost.inference_passes", 4)
        for method, nll in (("kd", 0.3), ("combined", 0.2)):
            change(make_run(tmp_path, method, seed, metrics={"nll": nll + seed / 100}), "cost.inference_passes", 1)
    table = ablation(load(tmp_path), Study())[0]
    assert [row[0] for row in table.rows[2:]] == ["kd", "combined", "hydra (4 passes)"]
    assert bold_in(table, "NLL") == ["combined"] and "~" not in table.rows[4][table.columns.index("NLL")]
    assert any("so many times the inference" in note for note in table.notes)
