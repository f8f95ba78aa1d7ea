"""Tables in five forms: terminal (rich), Markdown, LaTeX (booktabs), CSV, HTML."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from analysis.report.tables.table import part

if TYPE_CHECKING:
    import rich.table

    from analysis.report.tables.table import Table

WIDE = 320  # characters: a pipe or a file has no width, and what is narrower would fold numbers
FORMS = ("text", "markdown", "latex", "csv", "html")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}",
    "~": r"$\sim$", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
    "[": "{[}", "]": "{]}", "|": r"$|$",
}  # fmt: skip
_MARKDOWN = re.compile(
    r"[\\`|*~]"
    r"|<(?=[A-Za-z/!?])"  # a tag
    r"|&(?=#?\w+;)"  # a character by name
    r"|\](?=[(\[])"  # a link
    r"|(?<!\w)_|_(?!\w)"  # emphasis, at a word's end
)
_FORMULA = ("=", "+", "-", "@")
_SIGNED = re.compile(r"-|[+-][\d.,]+(e[+-]?\d+)?( \[[-+\d., ]+\])?")


def terminal(table: Table) -> rich.table.Table:
    """A rich table; notes are its caption."""
    from rich import box
    from rich.table import Table as Rich
    from rich.text import Text  # what is a Text is no markup, whatever it says

    view = Rich(
        title=Text(table.title, "table.title"), caption=Text("\n".join(table.notes), "table.caption"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    for j, name in enumerate(table.columns):
        view.add_column(Text(name), justify="left" if j == 0 else "right", overflow="fold")
    for i, row in enumerate(table.rows):
        view.add_row(*(Text(c, "bold" if (i, j) in table.bold else "") for j, c in enumerate(row)))
    return view


def split(table: Table, width: int) -> list[Table]:
    """The table in parts of at most `width` characters, each with the first column; notes under the last."""
    widths = [max(len(row[j]) for row in (table.columns, *table.rows)) + 3 for j in range(len(table.columns))]
    parts: list[list[int]] = [[]]
    for j in range(1, len(widths)):
        if parts[-1] and widths[0] + sum(widths[i] for i in parts[-1]) + widths[j] > width:
            parts.append([])
        parts[-1].append(j)
    result = []
    for number, columns in enumerate(parts):
        title = table.title if number == 0 else f"{table.title} (continued)"
        result.append(replace(part(table, [0, *columns]), title=title, notes=[]))
    result[-1].notes.extend(table.notes)
    return result


def markdown(table: Table) -> str:
    """GitHub's table, then notes, then the runs behind each row."""
    cell = _markdown
    lines = [f"### {cell(table.title)}", "", "| " + " | ".join(map(cell, table.columns)) + " |"]
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(table.columns) - 1)) + "|")
    for i, row in enumerate(table.rows):
        cells = [f"**{cell(c)}**" if (i, j) in table.bold else cell(c) for j, c in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(cell(note) + "  " for note in table.notes), ""]
    lines += ["<details><summary>Runs behind each row</summary>", ""]
    lines += [f"- {cell(row[0])}: {', '.join(runs)}" for row, runs in zip(table.rows, table.runs, strict=True) if runs]
    return "\n".join([*lines, "", "</details>", ""])


def latex(table: Table) -> str:
    """A table environment for \\usepackage{booktabs}; runs as comments."""

    cell = _latex
    lines = [r"% needs \usepackage{booktabs}"]
    lines += [f"% {row[0]}: runs {' '.join(runs)}" for row, runs in zip(table.rows, table.runs, strict=True) if runs]
    lines += [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{cell(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(cell, table.columns)) + r" \\",
        r"\midrule",
    ]
    for i, row in enumerate(table.rows):
        cells = [rf"\textbf{{{cell(c)}}}" if (i, j) in table.bold else cell(c) for j, c in enumerate(row)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip {{\footnotesize {cell(' '.join(table.notes))}\par}}"] if table.notes else []
    return "\n".join([*lines, r"\end{table}", ""])


def as_csv(tables: list[Table]) -> str:
    """One table of them all, as programs read it: one header, a row for each row, in the column `table` the title of
    its table, at the end its runs; cells are empty where a table has no such column.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # A table may have two columns of one name: the first and the second are two columns here, too.
    places = [[(name, table.columns[:j].count(name)) for j, name in enumerate(table.columns)] for table in tables]
    columns = list(dict.fromkeys(place for table in places for place in table))
    writer.writerow(map(_csv, ["table", *(name for name, _ in columns), "runs"]))
    for table, mine in zip(tables, places, strict=True):
        for row, runs in zip(table.rows, table.runs, strict=True):
            cells = dict(zip(mine, row, strict=True))
            shown = [cells.get(place, "") for place in columns]
            writer.writerow(map(_csv, [table.title, *shown, " ".join(runs)]))
    return out.getvalue()


def as_html(table: Table, identity: str = "") -> str:
    """A sortable table in a region that scrolls by itself; headers are buttons, the runs a disclosure."""
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(name)}<span aria-hidden="true"></span></button></th>'
        for name in table.columns
    )
    body = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, text in enumerate(row):
            text = html.escape(text)
            text = f"<strong>{text}</strong>" if (i, j) in table.bold else text
            cells.append(f'<th scope="row">{text}</th>' if j == 0 else f"<td>{text}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    runs = "".join(
        f"<li>{html.escape(row[0])}: <code>{html.escape(' '.join(hashes))}</code></li>"
        for row, hashes in zip(table.rows, table.runs, strict=True)
        if hashes
    )
    label = html.escape(table.title, quote=True)
    name = f' id="{html.escape(identity, quote=True)}"' if identity else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table{name} class="sortable">'
        f"<caption>{html.escape(table.title)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
        f"</div><p class='notes'>{html.escape(' '.join(table.notes))}</p>"
        f"<details><summary>Runs behind each row</summary><ul class='runs'>{runs}</ul></details>"
    )


def render(tables: list[Table], form: str) -> str:
    """Several tables as one text in the named form."""
    if form == "csv":
        return as_csv(tables)
    if form == "text":
        from rich.console import Console

        console = Console(width=WIDE, record=True, file=io.StringIO())
        for table in tables:
            console.print(terminal(table))
        return console.export_text()
    one = {"markdown": markdown, "latex": latex, "html": as_html}
    if form not in one:
        raise ValueError(f"unknown form {form!r}: choose one of {', '.join(FORMS)}")
    return "\n".join(one[form](table) for table in tables)


def head(lines: Sequence[str], form: str) -> str:
    """Lines of text to stand above tables in the named form; CSV has no place for them."""
    if not lines or form == "csv":
        return ""
    shown = {
        "latex": lambda line: f"% {line}",
        "html": lambda line: f"<p>{html.escape(line)}</p>",
        "markdown": _markdown,
    }
    return "".join(f"{shown.get(form, str)(line)}\n" for line in lines) + "\n"


def _markdown(text: str) -> str:
    """A text as it is shown, not as Markdown or HTML: what might begin either is escaped, and nothing else."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _csv(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: numbers may begin with a sign, other texts get an apostrophe."""
    return f"'{text}" if text[:1] in _FORMULA and not _SIGNED.fullmatch(text) else text
