"""Parts that die, hang or are cut take nothing with them; and the whole, in small, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.bench import acceptance
from harness.bench.__main__ import main
from harness.bench.acceptance import Acceptance
from harness.bench.parts import LARGE, SMALL, Part, plan
from tests.heads import ROOT, wait_for

QUICK = 300.0  # more than a busy machine needs


def python(name: str, code: str, seconds: float = QUICK) -> Part:
    return Part(name, name, seconds, ["-c", code], f"{name}.json")


MACHINE = python("machine", "open('{folder}/machine.json', 'w').write('{\"card\": null, \"date\": \"today\"}')")


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *parts: Part) -> tuple[int, dict]:
    monkeypatch.setattr(acceptance, "MACHINE", MACHINE)
    monkeypatch.setattr(acceptance, "plan", lambda sizes, sweep: parts)
    monkeypatch.setattr(acceptance, "GRACE_S", 1.0)
    status = Acceptance(folder, [], small=False).run()
    return status, json.loads((folder / "acceptance.json").read_text())


def test_what_one_part_does_is_nothing_to_the_others(tmp_path, monkeypatch):
    half = "open('{folder}/%s.json', 'w').write('{\"half\": 1}')"
    status, report = run(
        tmp_path,
        monkeypatch,
        python("dies", half % "dies" + "; import os; print('goodbye', flush=True); os.abort()"),
        python("damages", "open('{folder}/damages.json', 'w').write('{')", 4 * QUICK),
        python("ends", half % "ends"),
        python("is late", half % "late", -100 * QUICK),
    )
    assert status == 2
    found = {part["name"]: part for part in report["parts"]}
    assert list(found) == ["machine", "dies", "damages", "ends", "is late"]
    assert found["dies"]["status"] == "failed" and found["dies"]["why"] == "exit code -6: goodbye"
    assert found["dies"]["result"] == found["ends"]["result"] == {"half": 1}
    assert "damaged" in found["damages"]["result"]
    assert found["ends"]["status"] == "done"
    assert found["is late"]["status"] == "cut" and found["is late"]["why"] == "no time was left for it"


def test_a_part_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(acceptance, "GRACE_S", 1.0)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); open('{folder}/deaf', 'w'); time.sleep(1e6)"
    head = Acceptance(tmp_path, [], small=False)
    late = time.monotonic() + QUICK
    status, why = head.execute(python("hangs", code), late, (tmp_path / "deaf").exists)
    assert (status, why) == ("cut", "stopped; the last it said: deaf")
    status, why = head.execute(python("sleeps", "import time; time.sleep(1e6)"), time.monotonic() + 1, lambda: False)
    assert (status, why) == ("cut", "its time was over; the last it said: it said nothing")


def test_all_that_a_part_started_ends_with_it(tmp_path, monkeypatch):
    child = f"[{sys.executable!r}, '-c', 'import time; time.sleep(1e6)']"
    code = f"import subprocess; p = subprocess.Popen({child}); open('{{folder}}/left.json', 'w').write(str(p.pid))"
    status, report = run(tmp_path, monkeypatch, python("left", code))
    assert status == 0

    def is_gone():
        try:
            return Path(f"/proc/{report['parts'][1]['result']}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_for(is_gone, "end of what a part left behind")


def test_the_page_is_there_after_each_part_and_when_it_is_stopped(tmp_path):
    code = (
        "from harness.bench import acceptance; from tests.bench import test_acceptance as t\n"
        "acceptance.MACHINE = t.MACHINE\n"
        "acceptance.plan = lambda sizes, sweep: [t.python('waits', 'import time; time.sleep(1e6)'), t.python('never', '')]\n"
        f"raise SystemExit(acceptance.Acceptance({str(tmp_path)!r}, [], False).run())"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as head:
        try:
            page = tmp_path / "acceptance.md"
            wait_for((tmp_path / "waits.log").exists, "the second part")
            assert "| machine | done |" in page.read_text()
            head.send_signal(signal.SIGTERM)
            assert head.wait(QUICK) == 2
        finally:
            head.kill()
    assert "| waits | cut |" in page.read_text() and "never" not in page.read_text()
    assert json.loads((tmp_path / "acceptance.json").read_text())["parts"][1]["why"].startswith("stopped; ")


def test_a_folder_is_used_once(tmp_path, capsys):
    (tmp_path / "acceptance.json").write_text("{}")
    assert main(["--acceptance", str(tmp_path)]) == 1
    assert "name another folder" in capsys.readouterr().err


def test_the_plan_for_a_gpu_takes_eight_minutes_at_most():
    parts = [acceptance.MACHINE, *plan(LARGE, [])]
    assert sum(part.seconds for part in parts) <= 480
    assert len({part.name for part in parts}) == len({part.output for part in parts}) == len(parts)
    assert "device=cpu" not in " ".join(word for part in parts for word in part.command)
    (sweep,) = (part.command for part in plan(LARGE, ["data=folder", "train=paper"]) if part.name == "sweep")
    assert "data=folder" in sweep and "train=paper" in sweep and "train=short" not in sweep


@pytest.mark.slow
def test_a_rehearsal_of_the_whole(tmp_path, capsys):
    status = main(["--acceptance", str(tmp_path), "--small"])
    logs = {path.name: path.read_text()[-2000:] for path in tmp_path.glob("*.log")}
    report = json.loads((tmp_path / "acceptance.json").read_text())
    found = {part["name"]: part for part in report["parts"]}
    assert status == 0, {name: (part["why"], logs[f"{name}.log"]) for name, part in found.items() if part["why"]}
    assert list(found) == ["machine", *(part.name for part in plan(SMALL, []))]
    eager = found["ladder_2"]["result"]
    assert list(eager) == ["eager TF32", "+ channels_last", "+ bfloat16"]
    assert [row["method"] for row in eager["eager TF32"]["methods"]] == ["supervised", "combined", "combined (naive)"]
    assert [row["method"] for row in eager["+ channels_last"]["methods"]][:2] == ["supervised", "combined"]
    assert list(found["ladder_3"]["result"]) == ["compiled instead"]
    assert [cell["processes"] for cell in found["packing"]["result"]["cells"]] == [1, 2, 4, 8]
    assert found["packing_mps"]["result"]["cells"] == [] or found["packing_mps"]["result"]["served_by_mps"]
    runs = [run["run"] for run in found["sweep"]["result"]]
    assert len(runs) == 2 + 5 and all(run["status"] == "done" for run in found["sweep"]["result"])
    page = (tmp_path / "acceptance.md").read_text()
    assert (
        "A rehearsal with tiny sizes on a CPU" in page and "| every run of the sweep is done | met | 7 of 7 |" in page
    )
    assert "## Ladder at B = 4" in page and "| combined (naive) |" in page and f"| {runs[-1]} | done |" in page
