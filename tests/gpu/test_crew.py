"""One check takes no other with it, and the page holds what each of them measured until its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gpu.checks import CHECKS, Check
from tests.gpu.child import ROOT
from tests.gpu.crew import PAGE, Crew
from tests.gpu.sheet import Sheet, read_sheet

pytestmark = pytest.mark.slow

# Bodies of checks that never were ------------------------------------------------------------------------------------


def holds(sheet: Sheet) -> None:
    sheet.note(found=1.5, device=str(sheet.device))
    sheet.expect(sheet.small, "it is no rehearsal")


def fails(sheet: Sheet) -> None:
    sheet.note(found=2)
    sheet.expect(False, "two is too much")
    sheet.note(later=3)


def raises(sheet: Sheet) -> None:
    sheet.note(found=4)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def dies(sheet: Sheet) -> None:
    sheet.note(found=5)
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(sheet: Sheet) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    sheet.note(child=left.pid)
    time.sleep(600)


# ----------------------------------------------------------------------------------------------------------------------


def named(number: int, body: str, **more) -> Check:
    return Check(number, f"it {body}", f"test_crew:{body}", **more)


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> tuple[list, list[dict]]:
    """Outcomes of all bodies, and the page."""
    folder = tmp_path_factory.mktemp("crew")
    checks = [
        named(1, "hangs", limit_s=30.0),
        named(2, "dies"),
        named(3, "raises"),
        named(4, "fails"),
        named(5, "holds", alone=True),
    ]
    page = folder / "page.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PAGE, str(page))
        with Crew(checks, folder, "cpu", small=True) as crew:
            found = [crew.outcome(check) for check in checks]
    return found, [json.loads(line) for line in page.read_text().splitlines()]


def test_a_check_that_fails_dies_or_hangs_takes_no_other_with_it(ended):
    found, _ = ended
    assert [outcome.passed for outcome in found] == [False, False, False, False, True]
    hung, dead, raised, failed, held = (outcome.measured for outcome in found)
    assert hung["wrong"] == ["it was not done after 30 s"]
    assert dead == {"found": 5, "wrong": ["it ended with exit code -11: it said nothing"]}
    assert raised["found"] == 4 and raised["wrong"][0].endswith("CUDA error: an illegal memory access was encountered")
    assert failed == {"found": 2, "later": 3, "wrong": ["two is too much"]}
    assert held == {"found": 1.5, "device": "cpu"}


def is_alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().split()[2] != "Z"


def test_what_a_check_started_ends_with_it(ended):
    (hung, *_), _ = ended
    assert not is_alive(hung.measured["child"])


LEAD = """
import sys
from pathlib import Path
from tests.gpu.test_crew import named
from tests.gpu.child import start_check
start_check(named(1, "hangs", limit_s=600.0), Path(sys.argv[1]), "cpu")
"""


def test_checks_end_with_those_who_asked_for_them(tmp_path):
    lead = subprocess.Popen([sys.executable, "-c", LEAD, str(tmp_path / "check")], cwd=ROOT)
    try:
        wait_until(lambda: "child" in read_sheet(tmp_path / "check")["measured"])
    finally:
        lead.kill()
        lead.wait()
    child = read_sheet(tmp_path / "check")["measured"]["child"]
    wait_until(lambda: not is_alive(child))


def wait_until(holds: Callable[[], bool], most_s: float = 120) -> None:
    deadline = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_page_has_a_line_for_each(ended):
    found, page = ended
    assert all(list(line) == ["check", "title", "passed", "measured", "seconds"] for line in page)
    assert sorted(line["check"] for line in page) == [1, 2, 3, 4, 5]
    assert page[-1]["check"] == 5, "the one that runs alone comes last"
    for outcome in found:
        assert outcome._asdict() in page
    assert str(found[4]).startswith("check  5 passed in ") and "it holds: found 1.5, device cpu" in str(found[4])


def test_every_check_has_its_number():
    assert sorted(check.number for check in CHECKS) == list(range(1, 16))
