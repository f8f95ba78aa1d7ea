"""Names that would command whoever shows them: in every field, in every form, they are shown and do nothing."""

from __future__ import annotations

import csv
import html.parser
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.records.declared import parse, study_of
from analysis.records.loading import load
from analysis.records.texts import plain
from analysis.report import render
from analysis.report.figures import gallery
from analysis.report.summary import summarise
from analysis.report.tables.table import Table
from tests.analysis import browser
from tests.analysis.synthetic import change, make_run

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\nb\\input{/etc/passwd}\n%",
    "\x1b[31mred\x1b]0;title\x07",
    "[red]x[/red] :smile: [bold",
    r"\end{tabular} $x^2_{y}$ #&~%{} \write18{ls}",
    "a|b `c` [x](javascript:alert(1)) ![y](http://127.0.0.1:9/z) **z** &lt;",
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "$\\frac{$",
    "\u202egnp.exe \u2028 \x00 \x9b31m",
    "../../../../tmp/outside",
    "_hidden",
    "{{ 7 * 7 }} {% raw %}",
    "x" * 3000,
)
FORMS = ("text", "markdown", "latex", "csv", "html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in which every name is nasty: of methods, options, data, models, the study, hosts, messages, notes."""
    folder = tmp_path_factory.mktemp("hostile")
    study = {
        "question": " ".join(NASTY),
        "baseline": "kd",
        "families": {nasty: {"against": "kd", "arms": [f"method {plain(nasty)}", f"option {plain(nasty)}"]}
                     for nasty in NASTY},
        "arms": {f"option {nasty}": {"method.note": nasty} for nasty in NASTY},
    }  # fmt: skip
    options = [("kd", {}), *((f"method {nasty}", {}) for nasty in NASTY), *(("own", {"note": n}) for n in NASTY)]
    for seed in range(2):
        for method, chosen in options:
            make_run(folder / "runs", "m", seed, files=False, study=study)  # makes the folder's name a plain one
            directory = next((folder / "runs").glob(f"m-digits-s{seed}-*"))
            directory = change(directory, "config.method", {"name": method, **chosen})
            directory = change(directory, "provenance.host", NASTY[0])
            directory = change(directory, "provenance.command", "\n".join(NASTY))
            directory = change(directory, "notes", list(NASTY[:4]))
            directory.rename(folder / "runs" / f"{len(list((folder / 'runs').iterdir()))}-{seed}")
        for method in ("kd", "own"):  # of other data, by another network
            other = make_run(folder / "other", method, seed, files=False, study=study)
            other = change(change(other, "config.data.name", NASTY[0] + NASTY[2]), "config.model", NASTY[12])
            other.rename(folder / "runs" / f"{method}-{seed}")
    for i, nasty in enumerate(NASTY):
        failed = make_run(folder / "runs", "kd", 10 + i, status="failed", study=study)
        failed = change(failed, "error.message", nasty)
        change(change(failed, "error.type", nasty), "config.data.name", nasty)
    return folder / "runs"


def harmless(text: str) -> None:
    """Nothing in a text that commands a terminal."""
    assert not [c for c in text if not c.isprintable() and c != "\n"]


class Tags(html.parser.HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))


@pytest.fixture(scope="module")
def shown(hostile: Path) -> dict[str, str]:
    runs = load(hostile)
    view = summarise(runs, study_of(runs))
    return {form: render.head(view.lines, form) + render.render(view.tables, form) for form in FORMS}


def test_terminal(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(hostile)]) == 0
    said = capsys.readouterr()
    harmless(said.out)
    harmless(said.err)
    assert "method [red]x[/red] :smile: [bold" in said.out
    assert r"\x1b[31mred" in said.out


def test_text(shown: dict[str, str]) -> None:
    harmless(shown["text"])


def test_html(shown: dict[str, str]) -> None:
    harmless(shown["html"])
    found = Tags(shown["html"]).found
    assert {tag for tag, _ in found} <= {
        "p", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "button", "span", "strong", "details",
        "summary", "ul", "li", "code",
    }  # fmt: skip
    assert not [name for _, names in found for name in names if name.startswith("on")]


def test_markdown(shown: dict[str, str]) -> None:
    harmless(shown["markdown"])
    for line in shown["markdown"].splitlines():
        bare = re.sub(r"\\.", "", line)  # what is escaped is text
        assert not re.search(r"<(?!/?(details|summary)>)[A-Za-z/!?]", bare)
        assert not re.search(r"\]\(|`|\*(?!\*)(?<!\*\*)", bare.replace("**", ""))
        if line.startswith("|"):
            assert bare.count("|") == len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) - 1
    rows = [re.sub(r"\\.", "", line).count("|") for line in shown["markdown"].splitlines() if line.startswith("|")]
    assert rows
    first = shown["markdown"].split("\n\n")[2].splitlines()
    assert len({re.sub(r"\\.", "", line).count("|") for line in first}) == 1


def test_latex(shown: dict[str, str]) -> None:
    harmless(shown["latex"])
    for line in shown["latex"].splitlines():
        if line.startswith("%"):
            continue
        words = set(re.findall(r"\\([A-Za-z]+)", line))
        assert words <= {
            "begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbf", "textbackslash",
            "textasciicircum", "sim", "pm", "par", "smallskip", "footnotesize",
        }, line  # fmt: skip
        assert not re.search(r"(?<!\\)[%#]", line)
    body = re.sub(r"\\[{}]", "", "\n".join(x for x in shown["latex"].splitlines() if not x.startswith("%")))
    assert body.count("{") == body.count("}")


def test_csv(shown: dict[str, str]) -> None:
    harmless(shown["csv"])
    cells = [cell for row in csv.reader(io.StringIO(shown["csv"])) for cell in row]
    signed = re.compile(r"-|[+-][\d.,]+( \[[-+\d., ]+\])?")
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@") and not signed.fullmatch(cell)]
    names = [f"{start} {cell}" for start in ("=cmd", "@SUM", "-x") for cell in "ab"]
    text = render.as_csv(
        [Table("t", ["arm", *names[:2]], [[name, "-0.5", "+0.1 [-0.2, +0.4]"] for name in names], [[]] * 6)]
    )
    assert all(f"'{name}" in text for name in names)
    assert "'-0.5" not in text and "'+0.1" not in text


def test_page_and_figures(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(hostile), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    harmless(page)
    found = Tags(page).found
    assert [tag for tag, _ in found].count("script") == 1  # its own
    assert not [name for _, names in found for name in names if name.startswith("on")]
    assert {tag for tag, _ in found if tag in ("iframe", "object", "base", "form")} == set()
    assert "49 " not in page and "{{ 7 * 7 }}" in page
    harmless(capsys.readouterr().err)


@pytest.fixture(scope="module")
def drawn(hostile: Path) -> list[gallery.Drawn]:
    runs = load(hostile)
    block = {"families": {"../../f": {"against": "kd"}}}
    return list(gallery.everything(runs, parse(block, "t")))


def test_figures_are_drawn_and_stay_in_their_folder(drawn: list[gallery.Drawn], tmp_path: Path) -> None:
    assert len(drawn) > 10
    assert len({one.name for one in drawn}) == len(drawn)
    assert all(re.fullmatch(r"[\w-]+", one.name) for one in drawn)
    for one in drawn[:: len(drawn) // 8]:
        for path in gallery.save(one.figure, tmp_path / "figures" / one.name, ("svg",)):
            assert path.resolve().parent == (tmp_path / "figures").resolve()
            tags = {element.tag.split("}")[1] for element in ElementTree.fromstring(path.read_bytes()).iter()}
            assert not tags & {"script", "image", "a", "foreignObject"}
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]


@pytest.mark.browser
@pytest.mark.skipif(browser.executable() is None, reason="needs chromium (apt install chromium)")
@pytest.mark.parametrize("command", ["report", "table"])
def test_nothing_runs_in_a_browser(hostile: Path, tmp_path: Path, command: str) -> None:
    path = tmp_path / "r.html"
    form = ["--format", "html"] if command == "table" else []
    assert main([command, str(hostile), *form, "-o", str(path)]) == 0
    page = browser.Page(tmp_path / "profile")
    try:
        page.open(path)
        assert page.errors == []
        assert [r for r in page.requests if not r.startswith(("data:", path.resolve().as_uri()))] == []
        assert page.evaluate("document.querySelectorAll('img[onerror]').length") == 0
    finally:
        page.close()


@pytest.mark.parametrize("text", NASTY)
def test_plain_is_one_line_and_says_all(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)
    if text.isprintable():
        assert plain(text) == text
