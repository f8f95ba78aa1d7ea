"""Tables in five forms."""

import csv
import io
import os
import re
import shutil
import subprocess

import pandas as pd
import pytest

from analysis.records.texts import plain
from analysis.report import render
from analysis.report.tables.table import Table
from tests.analysis.report.test_hostile import NASTY


def test_markdown(view):
    text = render.markdown(view.tables[0])
    header, rule = text.splitlines()[2:4]
    assert header.count("|") == rule.count("|") == len(view.tables[0].columns) + 1
    assert "**" in text
    for hashes in view.tables[0].runs:
        assert all(h in text for h in hashes)


def test_csv_reads_back(view):
    rows = list(csv.reader(io.StringIO(render.as_csv(view.tables[:1]))))
    assert rows[0] == ["table", *view.tables[0].columns, "runs"]
    assert all(len(row) == len(rows[0]) for row in rows)
    assert rows[-1][-1].split() == view.tables[0].runs[-1]


def test_pandas_reads_several_tables(view):
    """Of other columns each, also where a table names one twice, or as this file does."""
    odd = Table("odd", ["runs", "p", "p"], [["3", "0.1", ">= 0.2"]], [["abc"]])
    read = pd.read_csv(io.StringIO(render.render([*view.tables, odd], "csv")), dtype=str, keep_default_na=False)
    assert list(read["table"]) == [table.title for table in [*view.tables, odd] for _ in table.rows]
    last = read.iloc[-1]
    assert (last["runs"], last["p"], last["p.1"], last["runs.1"]) == ("3", "0.1", ">= 0.2", "abc")
    for table in view.tables:
        rows = read[read["table"] == table.title]
        for j, name in enumerate(table.columns):
            name = name or next(column for column in read if column.startswith("Unnamed"))
            assert [cell.removeprefix("'") for cell in rows[name]] == [row[j].removeprefix("'") for row in table.rows]


def test_html_escapes(view):
    table = Table('<a> & "b"', ["x", "<y>"], [["<script>", "1 < 2"]], [["abc"]])
    text = render.as_html(table)
    assert "<script>" not in text
    assert "&lt;y&gt;" in text
    assert text.count("<th scope") == 3


def latex_is_balanced(text):
    body = re.sub(r"(?<!\\)%.*", "", text)
    stripped = re.sub(r"\\[{}\\&%$#_]", "", body)
    assert stripped.count("{") == stripped.count("}")
    assert stripped.count("$") % 2 == 0
    assert not re.search(r"(?<!\\)[#_]", re.sub(r"\\[a-z]+\{[^}]*\}", "", body.replace(r"\_", "")).replace("%", ""))
    begun = re.findall(r"\\begin\{(\w+)\}", body)
    assert sorted(begun) == sorted(re.findall(r"\\end\{(\w+)\}", body))


def test_latex_is_well_formed(view):
    for table in view.tables:
        text = render.latex(table)
        latex_is_balanced(text)
        rows = [line for line in text.splitlines() if line.endswith(r" \\")]
        assert len(rows) == len(table.rows) + 1
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}
        assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_latex_compiles(view, tmp_path):
    if shutil.which("pdflatex") is None:
        if "latex" in os.environ.get("HARNESS_REQUIRE", "").replace(" ", "").split(","):
            pytest.fail("HARNESS_REQUIRE names latex, but there is no pdflatex", pytrace=False)
        pytest.skip("needs pdflatex")
    names = [plain(name).encode("ascii", "replace").decode() for name in (*NASTY, "[a] b", "-- --- ?` !` ''", "\\")]
    odd = Table(names[0], ["Größe ±", "é ×"], [[name, name] for name in names], [[]] * len(names), notes=names)
    body = "\n".join(render.latex(table) for table in [*view.tables, odd])
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "t.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:]


@pytest.mark.parametrize("width", [60, 100, 400])
def test_narrow_terminals_get_the_table_in_parts(view, width):
    table = view.tables[0]
    parts = render.split(table, width)
    assert [name for part in parts for name in part.columns[1:]] == table.columns[1:]
    assert all(part.columns[0] == "arm" and len(part.rows) == len(table.rows) for part in parts)
    assert (len(parts) == 1) == (width == 400)
    bold = {(part.rows[i][0], part.columns[j]) for part in parts for i, j in part.bold}
    assert bold == {(table.rows[i][0], table.columns[j]) for i, j in table.bold}
    assert [part.notes for part in parts] == [[]] * (len(parts) - 1) + [table.notes]
    for part in parts:
        if len(part.columns) > 2:
            widest = [max(len(row[j]) for row in (part.columns, *part.rows)) for j in range(len(part.columns))]
            assert sum(widest) + 3 * len(widest) <= width


def test_text_form_shows_every_cell(view):
    text = render.render(view.tables[:1], "text")
    assert all(cell in text for row in view.tables[0].rows for cell in row)
    with pytest.raises(ValueError, match="unknown form"):
        render.render([], "word")


@pytest.mark.parametrize(
    "form, expected",
    [("markdown", "a\nb\n\n"), ("latex", "% a\n% b\n\n"), ("html", "<p>a</p>\n<p>b</p>\n\n"), ("csv", "")],
)
def test_lines_stand_above_the_tables_where_the_form_allows(form, expected):
    assert render.head(["a", "b"], form) == expected
    assert render.head([], form) == ""
