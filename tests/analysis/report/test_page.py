"""The report, in a real browser where there is one."""

import os
import re
import shutil

import pytest

from analysis.__main__ import main
from analysis.records.declared import study_of
from analysis.records.loading import load
from analysis.records.study import Study
from analysis.report.page import build_report, commands
from analysis.verdicts.contrasts import compute
from tests.analysis import browser
from tests.analysis.synthetic import make_run


def test_report_of_a_sweep_that_has_just_begun(tmp_path):
    make_run(tmp_path, "kd", 0, status="failed")
    make_run(tmp_path, "combined", 0, files=False)
    page = build_report(load(tmp_path), Study())
    assert "Nothing can be established with 1 seed" in page
    assert "loss is not finite" in page
    make_run(tmp_path / "apart", "kd", 1, files=False)
    make_run(tmp_path / "apart", "combined", 0, files=False)
    assert "no pairs on NLL" in build_report(load(tmp_path / "apart"), Study())


def test_report_escapes_what_it_did_not_write(tmp_path):
    make_run(tmp_path, "kd", 0, study={"question": "<script>alert(1)</script>"}, files=False)
    runs = load(tmp_path)
    assert "<script>alert" not in build_report(runs, study_of(runs))


def test_commands_are_shown_as_typed(runs):
    frame = runs.assign(command="/site/harness/__main__.py -m method=all")
    assert commands(frame) == [("python -m harness -m method=all", len(runs))]


needs_browser = pytest.mark.skipif(
    browser.executable() is None and not os.environ.get("CI"), reason="needs chromium (apt install chromium)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory, study_folder):
    folder = tmp_path_factory.mktemp("report")
    source = folder / "runs"
    shutil.copytree(study_folder, source)
    make_run(source, "kd", 99, status="diverged")
    path = folder / "report.html"
    assert main(["report", str(source), "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    tab = browser.Page(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.mark.browser
@needs_browser
class TestInBrowser:
    def test_no_error_and_nothing_leaves_the_page(self, page, report):
        page.size(1280, 900)
        page.open(report)
        assert page.errors == []
        assert [r for r in page.requests if not r.startswith(("data:", report.resolve().as_uri()))] == []

    def test_the_listeners_would_notice(self, page, report, tmp_path):
        bad = tmp_path / "bad.html"
        bad.write_text("<script>console.error('x'); undefined.y</script><img src='http://127.0.0.1:9/z.png'>")
        page.open(bad)
        assert len(page.errors) >= 2
        assert "http://127.0.0.1:9/z.png" in page.requests
        page.errors.clear()
        page.requests.clear()
        page.open(report)

    def test_every_figure_is_drawn_and_described(self, page, report):
        page.open(report)
        images = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
        assert len(images) == 14
        assert all(complete and width > 0 and alt > 20 for complete, width, alt in images)

    def test_verdicts_come_first_and_match(self, page, report, runs):
        page.open(report)
        texts = page.evaluate("[...document.querySelectorAll('main > section')].map(s => s.id)")
        assert texts == [
            "verdicts",
            "tables",
            "limits",
            "figures",
            "comparisons",
            "failures",
            "provenance",
            "reproduce",
        ]
        shown = page.evaluate("[...document.querySelectorAll('.verdicts li')].map(l => l.className)")
        assert shown == [c.verdict for c in compute(runs, Study(), ["nll"])]
        assert "loss is not finite" in page.evaluate("document.querySelector('#failures').textContent")
        command = f"python -m analysis report {report.parent / 'runs'} -o {report}"
        assert command in page.evaluate("document.querySelector('#reproduce').textContent")
        assert "python -m harness method=kd seed=3" in page.evaluate("document.querySelector('#reproduce').textContent")

    def test_what_does_not_decide_is_folded(self, page, report):
        page.size(1280, 900)
        page.open(report)
        shown = page.evaluate(
            "[...document.querySelectorAll('table')].filter(t => t.checkVisibility()).map(t => t.caption.textContent)"
        )
        assert shown == ["digits x preresnet_tiny", "Runs that did not end well"]
        assert not page.evaluate("[...document.images].some(i => i.checkVisibility())")
        words = page.evaluate("document.querySelector('main').innerText.split(/\\s+/).length")
        assert words < 900

    @pytest.mark.parametrize("width", [320, 375, 768])
    def test_phone_width_does_not_overflow(self, page, report, width):
        page.size(width, 800, mobile=True)
        page.open(report)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Wide tables scroll inside their own region.
        assert page.evaluate(
            "[...document.querySelectorAll('.scroll')].some(s => s.scrollWidth > s.clientWidth"
            " && getComputedStyle(s).overflowX === 'auto')"
        )

    def test_tables_sort_by_keyboard(self, page, report):
        page.size(1280, 900)
        page.open(report)
        column = "[...document.querySelectorAll('#table-0 tbody tr')].map(r => r.cells[3].textContent)"
        head = "document.querySelector('#table-0 thead th:nth-child(4)')"
        page.evaluate(f"{head}.querySelector('button').focus()")
        page.press("Enter", 13, "\r")
        values = [float(text.split()[0]) for text in page.evaluate(column)]
        assert values == sorted(values)
        assert page.evaluate(f"{head}.getAttribute('aria-sort')") == "ascending"
        page.press(" ", 32, " ")
        values = [float(text.split()[0]) for text in page.evaluate(column)]
        assert values == sorted(values, reverse=True)
        assert page.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
        assert page.evaluate("document.querySelectorAll('#table-0 [aria-sort]').length") == 1
        assert "Sorted by NLL" in page.evaluate("document.querySelector('[role=status]').textContent")

    def test_empty_cells_sort_last(self, page, report):
        page.open(report)
        button = "document.querySelector('#table-0 thead th:last-child button')"
        for _ in range(2):
            page.evaluate(f"{button}.click()")
            last = page.evaluate(
                "[...document.querySelectorAll('#table-0 tbody tr')].map(r => [...r.cells].at(-1).textContent)"
            )
            assert last[-2:] == ["", ""]

    def test_every_control_is_reached_by_tab(self, page, report):
        page.open(report)
        seen = []
        for _ in range(12):
            page.press("Tab", 9)
            seen.append(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
        assert seen[0] == "Skip to the verdicts"
        assert "Figures" in seen

    def test_screen_reader_basics(self, page, report):
        page.open(report)
        facts = page.evaluate("""({
            lang: document.documentElement.lang, title: document.title,
            h1: document.querySelectorAll('h1').length,
            landmarks: ['header', 'nav', 'main', 'footer'].map(n => document.querySelectorAll(n).length),
            unnamed: [...document.querySelectorAll('section, nav, [role=region]')].filter(e => {
                const label = e.getAttribute('aria-labelledby');
                return !(e.getAttribute('aria-label') || (label && document.getElementById(label)));
            }).length,
            captions: [...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent),
            scopes: [...document.querySelectorAll('th')].every(t => t.scope),
            levels: [...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1])),
            ids: [...document.querySelectorAll('[id]')].map(e => e.id),
            anchors: [...document.querySelectorAll('nav a')].every(
                a => document.querySelector(a.getAttribute('href'))),
        })""")
        assert facts["lang"] == "en"
        assert facts["title"]
        assert facts["h1"] == 1
        assert facts["landmarks"] == [1, 1, 1, 1]
        assert facts["unnamed"] == 0
        assert facts["captions"] and facts["scopes"] and facts["anchors"]
        assert all(b - a <= 1 for a, b in zip(facts["levels"], facts["levels"][1:], strict=False))
        assert len(facts["ids"]) == len(set(facts["ids"]))

    def test_prints(self, page, report):
        page.size(1280, 900)
        page.open(report)
        page.call("Emulation.setEmulatedMedia", media="print")
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        # A4 landscape less margins is 1046 CSS pixels: tables have to fit, as paper does not scroll.
        page.size(1046, 700)
        widest = page.evaluate(
            "Math.max(...[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right))"
        )
        assert widest <= 1046
        page.call("Emulation.setEmulatedMedia", media="")
        pdf = page.pdf()
        assert pdf.startswith(b"%PDF")
        assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 60
        assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)")
